//! A reader of the kernel's BTF, for the few questions that the probes ask: where is a member,
//! how large is a type, what is a tracepoint's prototype, does an enumerator exist.
//!
//! It reads the raw sections in place, one pass for the positions of the types and one for each
//! question; nothing is built per type. Format:
//! <https://github.com/torvalds/linux/blob/v6.18/Documentation/bpf/btf.rst>. aya keeps its own
//! reader private, and the public readers either cannot read a module's BTF, which continues
//! that of vmlinux, or build every type of the kernel in memory.

use std::fmt::Write as _;

use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FWD: u32 = 7;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_FLOAT: u32 = 16;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Types nest and refer to each other; real ones stay far below this.
const MAX_DEPTH: usize = 32;
/// Members that are looked at for one: the largest structures of the kernel have hundreds. Anonymous
/// ones can be in each other so that all ways through them are without number.
const MAX_MEMBERS: u32 = 1 << 16;

/// Why BTF could not answer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes are no BTF, or end early.
    #[error("malformed BTF: {0}")]
    Malformed(&'static str),
    /// A kind of type that this reader does not know.
    #[error("BTF has a type of the unknown kind {0}")]
    UnknownKind(u32),
    /// The type is not there.
    #[error("BTF has no type `{0}`")]
    NoType(String),
    /// The type is there without that member.
    #[error("BTF's `{0}` has no member `{1}`")]
    NoMember(String, String),
}

/// The BTF of vmlinux, or of a module together with that of vmlinux.
pub struct Btf<'a> {
    base: Option<&'a Btf<'a>>,
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type starts in `types`.
    positions: Vec<u32>,
}

/// One type: its head, and what follows it.
#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    info: u32,
    size_or_type: u32,
    rest: &'a [u8],
}

impl Type<'_> {
    fn kind(&self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn vlen(&self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Whether members carry a bit-field size in their offset's upper byte.
    fn kind_flag(&self) -> bool {
        self.info >> 31 == 1
    }
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let bytes = bytes.get(index * 4..index * 4 + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

impl<'a> Btf<'a> {
    /// Reads vmlinux's BTF, or with `base` that of a module, whose types and strings continue
    /// those of the base.
    pub fn parse(bytes: &'a [u8], base: Option<&'a Self>) -> Result<Self, BtfError> {
        let malformed = BtfError::Malformed;
        let header = bytes.get(..HEADER_LEN).ok_or(malformed("no header"))?;
        if u16::from_le_bytes([header[0], header[1]]) != MAGIC {
            return Err(malformed("wrong magic number or byte order"));
        }
        let field = |index| word(header, index).map(|value| value as usize);
        let section = |offset: Option<usize>, len: Option<usize>| {
            let start = field(1)?.checked_add(offset?)?;
            bytes.get(start..start.checked_add(len?)?)
        };
        let types = section(field(2), field(3)).ok_or(malformed("types out of bounds"))?;
        let strings = section(field(4), field(5)).ok_or(malformed("strings out of bounds"))?;

        let mut positions = Vec::with_capacity(types.len() / 20);
        let mut position = 0;
        while position < types.len() {
            positions.push(u32::try_from(position).map_err(|_| malformed("too large"))?);
            let head = Self::read_at(types, position).ok_or(malformed("a type is cut off"))?;
            position += 12 + trailing_len(&head)?;
        }
        if position != types.len() {
            return Err(malformed("the last type is cut off"));
        }
        Ok(Self {
            base,
            types,
            strings,
            positions,
        })
    }

    /// Offset in bytes of a member of a struct or union, also inside anonymous ones; a path goes
    /// through named members by dots: `control.exit_code`.
    pub fn member_offset(&self, type_name: &str, path: &str) -> Result<u32, BtfError> {
        let mut current = self.find(type_name, &[KIND_STRUCT, KIND_UNION])?;
        let mut offset = 0_u32;
        for name in path.split('.') {
            let (bits, type_id) = self
                .find_member(current, name, 0, &mut { MAX_MEMBERS })
                .ok_or_else(|| BtfError::NoMember(type_name.to_owned(), path.to_owned()))?;
            offset = offset
                .checked_add(bits / 8)
                .ok_or(BtfError::Malformed("a member is out of bounds"))?;
            current = self.resolve(type_id);
        }
        Ok(offset)
    }

    /// Size in bytes of a struct or union.
    pub fn size(&self, type_name: &str) -> Result<u32, BtfError> {
        let id = self.find(type_name, &[KIND_STRUCT, KIND_UNION])?;
        let found = self
            .get(id)
            .ok_or(BtfError::Malformed("type out of bounds"))?;
        Ok(found.size_or_type)
    }

    /// The lower 32 bits of an enumerator's value; `None` where the enumeration has none of that
    /// name.
    pub fn enumerator(&self, enum_name: &str, enumerator: &str) -> Result<Option<u32>, BtfError> {
        let id = self.find(enum_name, &[KIND_ENUM, KIND_ENUM64])?;
        let found = self
            .get(id)
            .ok_or(BtfError::Malformed("type out of bounds"))?;
        let words = if found.kind() == KIND_ENUM { 2 } else { 3 };
        Ok((0..found.vlen()).find_map(|index| {
            let name = word(found.rest, index * words)?;
            let value = word(found.rest, index * words + 1)?;
            (self.string(name) == enumerator.as_bytes()).then_some(value)
        }))
    }

    /// The id of a function.
    pub fn function_id(&self, name: &str) -> Result<u32, BtfError> {
        self.find(name, &[KIND_FUNC])
    }

    /// The id of a variable. The kernel's BTF has those that each CPU has its own of.
    pub fn variable_id(&self, name: &str) -> Result<u32, BtfError> {
        self.find(name, &[KIND_VAR])
    }

    /// The arguments of a tracepoint as its programs get them, in C: `int, struct task_struct *`.
    ///
    /// The kernel describes each tracepoint by a `typedef void (*btf_trace_NAME)(void *, …)`.
    pub fn tracepoint_prototype(&self, tracepoint: &str) -> Result<String, BtfError> {
        let name = format!("btf_trace_{tracepoint}");
        let missing = || BtfError::NoType(name.clone());
        let typedef = self
            .get(self.find(&name, &[KIND_TYPEDEF])?)
            .ok_or_else(missing)?;
        let pointer = self.get(typedef.size_or_type).ok_or_else(missing)?;
        let proto = self.get(pointer.size_or_type).ok_or_else(missing)?;
        if pointer.kind() != KIND_PTR || proto.kind() != KIND_FUNC_PROTO {
            return Err(missing());
        }
        let arguments: Vec<String> = (1..proto.vlen())
            .filter_map(|index| word(proto.rest, index * 2 + 1))
            .map(|type_id| self.describe(type_id, 0))
            .collect();
        Ok(arguments.join(", "))
    }

    fn find(&self, name: &str, kinds: &[u32]) -> Result<u32, BtfError> {
        let own = self
            .positions
            .iter()
            .enumerate()
            .find_map(|(index, position)| {
                let head = Self::read_at(self.types, *position as usize)?;
                (kinds.contains(&head.kind()) && self.string(head.name) == name.as_bytes())
                    .then(|| self.first_id() + index as u32)
            });
        match (own, self.base) {
            (Some(id), _) => Ok(id),
            (None, Some(base)) => base.find(name, kinds),
            (None, None) => Err(BtfError::NoType(name.to_owned())),
        }
    }

    /// Offset in bits and type of a member, also of anonymous structs and unions inside.
    /// Takes what it looks at from `left`.
    fn find_member(&self, id: u32, name: &str, depth: usize, left: &mut u32) -> Option<(u32, u32)> {
        let outer = self.get(id)?;
        if depth > MAX_DEPTH || !matches!(outer.kind(), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        (0..outer.vlen()).find_map(|index| {
            *left = left.checked_sub(1)?;
            let member = word(outer.rest, index * 3)?;
            let type_id = word(outer.rest, index * 3 + 1)?;
            let mut bits = word(outer.rest, index * 3 + 2)?;
            if outer.kind_flag() {
                bits &= 0x00ff_ffff;
            }
            let found = self.string(member);
            if found == name.as_bytes() {
                return Some((bits, type_id));
            }
            if !found.is_empty() {
                return None;
            }
            let (inner, inner_type) =
                self.find_member(self.resolve(type_id), name, depth + 1, left)?;
            Some((bits.checked_add(inner)?, inner_type))
        })
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> u32 {
        for _ in 0..MAX_DEPTH {
            match self.get(id) {
                Some(found)
                    if matches!(
                        found.kind(),
                        KIND_TYPEDEF | KIND_CONST | KIND_VOLATILE | KIND_RESTRICT | KIND_TYPE_TAG
                    ) =>
                {
                    id = found.size_or_type;
                }
                _ => break,
            }
        }
        id
    }

    fn describe(&self, id: u32, depth: usize) -> String {
        let Some(found) = self.get(id).filter(|_| depth <= MAX_DEPTH) else {
            return "void".to_owned();
        };
        let name = String::from_utf8_lossy(self.string(found.name)).into_owned();
        match found.kind() {
            KIND_PTR => {
                let mut target = self.describe(found.size_or_type, depth + 1);
                if !target.ends_with('*') {
                    target.push(' ');
                }
                let _ = write!(target, "*");
                target
            }
            KIND_CONST => format!("const {}", self.describe(found.size_or_type, depth + 1)),
            KIND_VOLATILE | KIND_RESTRICT | KIND_TYPE_TAG => {
                self.describe(found.size_or_type, depth + 1)
            }
            KIND_STRUCT => format!("struct {name}"),
            KIND_UNION => format!("union {name}"),
            KIND_ENUM | KIND_ENUM64 => format!("enum {name}"),
            _ => name,
        }
    }

    fn first_id(&self) -> u32 {
        self.base
            .map_or(1, |base| base.first_id() + base.positions.len() as u32)
    }

    fn get(&self, id: u32) -> Option<Type<'a>> {
        match self.base {
            Some(base) if id < self.first_id() => base.get(id),
            _ => {
                let index = id.checked_sub(self.first_id())? as usize;
                Self::read_at(self.types, *self.positions.get(index)? as usize)
            }
        }
    }

    fn read_at(types: &'a [u8], position: usize) -> Option<Type<'a>> {
        let bytes = types.get(position..)?;
        Some(Type {
            name: word(bytes, 0)?,
            info: word(bytes, 1)?,
            size_or_type: word(bytes, 2)?,
            rest: &bytes[12..],
        })
    }

    fn string(&self, offset: u32) -> &'a [u8] {
        let own_start = self.base.map_or(0, Btf::strings_end);
        if offset < own_start {
            return self.base.map_or(b"", |base| base.string(offset));
        }
        let rest = self
            .strings
            .get((offset - own_start) as usize..)
            .unwrap_or_default();
        let end = rest
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(rest.len());
        &rest[..end]
    }

    fn strings_end(&self) -> u32 {
        let base = self.base.map_or(0, Btf::strings_end);
        base.saturating_add(u32::try_from(self.strings.len()).unwrap_or(u32::MAX))
    }
}

/// Bytes that follow a type's head.
fn trailing_len(head: &Type<'_>) -> Result<usize, BtfError> {
    let vlen = head.vlen();
    Ok(match head.kind() {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => vlen * 12,
        KIND_ENUM | KIND_FUNC_PROTO => vlen * 8,
        KIND_PTR | KIND_FWD | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT
        | KIND_FUNC | KIND_FLOAT | KIND_TYPE_TAG => 0,
        kind => return Err(BtfError::UnknownKind(kind)),
    })
}

#[cfg(test)]
mod tests;
