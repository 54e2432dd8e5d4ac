//! What the guests run: machine code, written by hand.

/// Real-mode code. ECX holds how often, and is above 0.
#[rustfmt::skip]
pub const PORT_IO: [u8; 7] = [
    0xe6, 0x10, // again: out 0x10, al
    0x66, 0x49, // dec ecx
    0x75, 0xfa, // jnz again
    0xf4,       // hlt
];

/// 32-bit code that goes round for ever. EDI holds the address of the first page that was never
/// touched, EBP one without memory.
///
/// The MSR is IA32_MTRR_DEF_TYPE, which KVM keeps for every guest and passes through to none.
#[rustfmt::skip]
pub const EACH_REASON: [u8; 29] = [
    0xe6, 0x10,                         // again: out 0x10, al
    0xf4,                               // hlt
    0x31, 0xc0,                         // xor eax, eax
    0x0f, 0xa2,                         // cpuid
    0xb9, 0xff, 0x02, 0x00, 0x00,       // mov ecx, 0x2ff
    0x0f, 0x32,                         // rdmsr
    0x0f, 0x30,                         // wrmsr
    0x89, 0x07,                         // mov [edi], eax
    0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add edi, 0x1000
    0x89, 0x45, 0x00,                   // mov [ebp], eax
    0xeb, 0xe3,                         // jmp again
];
