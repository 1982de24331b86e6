//! Rows as ClickHouse sends them: `RowBinary`, column after column without names.

use std::net::{IpAddr, Ipv6Addr};

/// What was sent is not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads rows from front to back.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    rest: &'a [u8],
}

impl<'a> Rows<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// True after the last row.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, Malformed> {
        self.array().map(u128::from_le_bytes)
    }

    /// A column of IPv6 beside its version: 4 or 6; 0 is none.
    pub(super) fn address(&mut self) -> Result<Option<IpAddr>, Malformed> {
        let version = self.u8()?;
        let address: Ipv6Addr = self.array::<16>()?.into();
        match version {
            0 => Ok(None),
            4 => address.to_ipv4_mapped().map(|v4| Some(v4.into())).ok_or(Malformed),
            6 => Ok(Some(address.into())),
            _ => Err(Malformed),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_invalid| Malformed)
    }

    /// A text that is none.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.length()?).map_err(|_beyond| Malformed)?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A length, seven bits a byte, the lowest first.
    pub(super) fn length(&mut self) -> Result<u64, Malformed> {
        let mut length = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(length);
            }
        }
        Err(Malformed)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_type_is_read() {
        let bytes = [
            &[7][..],
            &443_u16.to_le_bytes(),
            &70_000_u32.to_le_bytes(),
            &u64::MAX.to_le_bytes(),
            &(-5_i64).to_le_bytes(),
            &u128::MAX.to_le_bytes(),
            &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1],
            &[0; 17],
            &[0x82, 0x01],
            "x".repeat(130).as_bytes(),
        ]
        .concat();
        let mut rows = Rows::new(&bytes);
        assert_eq!(rows.u8(), Ok(7));
        assert_eq!(rows.u16(), Ok(443));
        assert_eq!(rows.u32(), Ok(70_000));
        assert_eq!(rows.u64(), Ok(u64::MAX));
        assert_eq!(rows.i64(), Ok(-5));
        assert_eq!(rows.u128(), Ok(u128::MAX));
        assert_eq!(rows.address(), Ok(Some(IpAddr::from([10, 0, 0, 1]))));
        assert_eq!(rows.address(), Ok(None));
        assert_eq!(rows.text().map(str::len), Ok(130));
        assert!(rows.is_empty());
        assert_eq!(rows.u8(), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut rows = Rows::new(&bytes);
            while !rows.is_empty() {
                let before = rows.rest.len();
                if rows.text().is_err() || rows.address().is_err() {
                    break;
                }
                prop_assert!(rows.rest.len() < before);
            }
        }
    }
}
