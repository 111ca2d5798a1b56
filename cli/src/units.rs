//! Sizes, rates, durations and ranks, parsed once into types that cannot be confused.

use std::str::FromStr;

/// Bytes: `512MiB`, `20GiB`, `1GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = text
            .parse::<bytesize::ByteSize>()
            .map_err(|_| format!("`{text}` is not a size; write it like 512MiB or 20GiB"))?;
        Ok(Self(size.as_u64()))
    }
}

/// Bytes a second, typed in bits: `2Gbit`, `800Mbit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) u64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a rate; write it like 800Mbit or 2Gbit");
        let number = text.strip_suffix("bit").ok_or_else(refused)?;
        let bits = format!("{number}B").parse::<bytesize::ByteSize>().map_err(|_| refused())?;
        match bits.as_u64() / 8 {
            0 => Err(refused()),
            bytes => Ok(Self(bytes)),
        }
    }
}

/// A positive span of time: `90m`, `12h`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Duration(pub(crate) std::time::Duration);

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|d| std::time::Duration::try_from(d).ok())
            .filter(|d| !d.is_zero())
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a duration; write it like 90m or 12h"))
    }
}

/// `3/8`: rank 3 (counted from 0) of 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RankArg {
    pub(crate) rank: u16,
    pub(crate) ranks: u16,
}

impl FromStr for RankArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('/')
            .and_then(|(rank, ranks)| Some((rank.parse().ok()?, ranks.parse().ok()?)))
            .filter(|(rank, ranks)| rank < ranks)
            .map(|(rank, ranks)| Self { rank, ranks })
            .ok_or_else(|| {
                format!("`{text}` is not a rank; write I/N with I from 0 to N-1, like 3/8")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_what_people_type() {
        assert_eq!("20GiB".parse(), Ok(Size(20 << 30)));
        assert_eq!("2Gbit".parse(), Ok(Rate(250_000_000)));
        assert_eq!("12h".parse(), Ok(Duration(std::time::Duration::from_secs(43_200))));
        assert_eq!("3/8".parse(), Ok(RankArg { rank: 3, ranks: 8 }));
        for bad in ["", "x", "-1h", "0s"] {
            assert!(bad.parse::<Duration>().is_err(), "{bad}");
        }
        for bad in ["8/8", "1", "a/b", "-1/2", "1/0"] {
            assert!(bad.parse::<RankArg>().is_err(), "{bad}");
        }
        for bad in ["2G", "0bit", "bit"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
