//! Netlink attributes: a length, a type and a value, possibly a nest of further attributes.

use super::Malformed;

/// How deep nests may go; the kernel's own stay below it.
pub const MAX_DEPTH: u8 = 8;

/// Length and type, two bytes each.
const HEADER: usize = 4;
/// `NLA_TYPE_MASK`: the type without the nested and byte-order flags.
const TYPE_MASK: u16 = 0x3fff;

/// Reads the attributes in `bytes`, which must begin at an attribute header.
pub fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { rest: bytes, depth: 0 }
}

/// Iterator over attributes; ends after the first error.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
    depth: u8,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let available = self.rest.len();
        let Some(&[l0, l1, k0, k1]) = self.rest.first_chunk::<HEADER>() else {
            self.rest = &[];
            return Some(Err(Malformed::HeaderCut { header: "attribute", available }));
        };
        let declared = usize::from(u16::from_ne_bytes([l0, l1]));
        let kind = u16::from_ne_bytes([k0, k1]) & TYPE_MASK;
        let Some(payload) = self.rest.get(HEADER..declared) else {
            self.rest = &[];
            return Some(Err(Malformed::Length { header: "attribute", kind, declared, available }));
        };
        // The last attribute of a nest may lack its padding.
        self.rest = self.rest.get(declared.next_multiple_of(HEADER)..).unwrap_or_default();
        Some(Ok(Attribute { kind, depth: self.depth, payload }))
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// Its type, without the flags for nesting and byte order.
    pub kind: u16,
    /// Its value.
    pub payload: &'a [u8],
    depth: u8,
}

impl<'a> Attribute<'a> {
    /// The attributes nested in this one.
    #[inline]
    pub fn nested(&self) -> Result<Attributes<'a>, Malformed> {
        if self.depth + 1 >= MAX_DEPTH {
            return Err(Malformed::Depth { kind: self.kind });
        }
        Ok(Attributes { rest: self.payload, depth: self.depth + 1 })
    }

    /// The value as an array, whose size must be exact.
    #[inline]
    pub fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        match self.payload.first_chunk() {
            Some(array) if self.payload.len() == N => Ok(*array),
            _ => Err(Malformed::Size { kind: self.kind, expected: N, found: self.payload.len() }),
        }
    }

    /// A byte.
    pub fn u8(&self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A 16-bit number in network order.
    pub fn be_u16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// A 32-bit number in network order.
    pub fn be_u32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A 64-bit number in network order.
    pub fn be_u64(&self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A 16-bit number in the machine's order, as rtnetlink has them.
    pub fn u16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_ne_bytes)
    }

    /// A 32-bit number in the machine's order, as rtnetlink has them.
    pub fn u32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    /// A 64-bit number in the machine's order, as rtnetlink has them.
    pub fn u64(&self) -> Result<u64, Malformed> {
        self.array().map(u64::from_ne_bytes)
    }

    /// The value as text up to its first NUL, if it is UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        let end = self.payload.iter().position(|byte| *byte == 0).unwrap_or(self.payload.len());
        self.payload.get(..end).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}
