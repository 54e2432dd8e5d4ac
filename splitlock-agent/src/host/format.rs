//! The tracefs `format` file of a tracepoint: where the fields of its record are.
//!
//! Lines look like `\tfield:unsigned long guest_rip;\toffset:16;\tsize:8;\tsigned:0;`.

use std::collections::BTreeMap;

/// A field of a trace record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the start of the record.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
}

/// The fields of a tracepoint's record, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format(BTreeMap<String, Field>);

impl Format {
    /// Reads the text of a `format` file. Lines that are no field are passed over.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(parse_field).collect())
    }

    /// A field by its name.
    pub fn field(&self, name: &str) -> Option<Field> {
        self.0.get(name).copied()
    }
}

fn parse_field(line: &str) -> Option<(String, Field)> {
    let mut declaration = None;
    let (mut offset, mut size) = (None, None);
    for part in line.split(';') {
        match part.trim().split_once(':') {
            Some(("field", value)) => declaration = Some(value),
            Some(("offset", value)) => offset = value.trim().parse().ok(),
            Some(("size", value)) => size = value.trim().parse().ok(),
            _ => {}
        }
    }
    let name = declaration?.split_whitespace().last()?;
    let name = name.split('[').next()?.trim_start_matches('*');
    Some((
        name.to_owned(),
        Field {
            offset: offset?,
            size: size?,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNAL_GENERATE: &str = "name: signal_generate
ID: 261
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:int sig;\toffset:8;\tsize:4;\tsigned:1;
\tfield:int code;\toffset:16;\tsize:4;\tsigned:1;
\tfield:char comm[16];\toffset:20;\tsize:16;\tsigned:0;
\tfield:__data_loc char[] path;\toffset:36;\tsize:4;\tsigned:0;
\tfield:const char * name;\toffset:40;\tsize:8;\tsigned:0;

print fmt: \"sig=%d; offset:1; field:int fake\", REC->sig
";

    #[test]
    fn fields_are_found_by_name() {
        let format = Format::parse(SIGNAL_GENERATE);
        let at = |offset, size| Some(Field { offset, size });
        assert_eq!(format.field("sig"), at(8, 4));
        assert_eq!(format.field("code"), at(16, 4));
        assert_eq!(format.field("comm"), at(20, 16));
        assert_eq!(format.field("path"), at(36, 4));
        assert_eq!(format.field("name"), at(40, 8));
        assert_eq!(format.field("fake"), None);
        assert_eq!(format.field("pid"), None);
    }

    #[test]
    fn odd_text_has_no_fields() {
        for text in [
            "",
            "field:",
            "field:int x;offset:y;size:4;",
            "field:int x;size:4;",
            ";;;:",
        ] {
            assert_eq!(Format::parse(text), Format::default(), "{text:?}");
        }
    }

    #[test]
    fn fuzz_format() {
        bolero::check!(name = "format").for_each(|text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            for name in Format::parse(&text).0.keys() {
                assert!(!name.contains(char::is_whitespace) && !name.starts_with('*'));
            }
            // Whatever stands before it, a field's own line is read as it is.
            let own = "\tfield:unsigned long own_field;\toffset:16;\tsize:8;\tsigned:0;";
            let format = Format::parse(&format!("{text}\n{own}\n"));
            let expected = Field {
                offset: 16,
                size: 8,
            };
            assert_eq!(format.field("own_field"), Some(expected));
        });
    }
}
