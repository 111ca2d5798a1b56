//! Fixed-width little-endian reading and writing of our own formats.

/// Bytes that are not what their format says. Carries the place and the rule, never the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {rule}")]
pub struct FormatError {
    /// Offset at which the rule was broken.
    pub at: u64,
    pub rule: &'static str,
}

impl FormatError {
    pub(crate) fn new(at: usize, rule: &'static str) -> Self {
        Self { at: at as u64, rule }
    }
}

/// A cursor that never reads past its end.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn refuse(&self, rule: &'static str) -> FormatError {
        FormatError::new(self.at, rule)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.refuse("ends too early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, FormatError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A byte string behind its u32 length; `cap` bounds it before anything is allocated.
    pub(crate) fn bytes32(&mut self, cap: usize) -> Result<&'a [u8], FormatError> {
        let len = self.u32()? as usize;
        if len > cap {
            return Err(self.refuse("a length is over its cap"));
        }
        self.take(len)
    }

    pub(crate) fn text32(&mut self, cap: usize) -> Result<&'a str, FormatError> {
        let bytes = self.bytes32(cap)?;
        std::str::from_utf8(bytes).map_err(|_| self.refuse("text is not UTF-8"))
    }
}

/// Appends `bytes` behind their u32 length.
pub(crate) fn put_bytes32(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&bytes[..len as usize]);
}
