//! HTTP/1.1 messages as they pass by: just enough to tell one from the next.

use std::io::{self, Read, Write};

/// Longest head that is read.
const HEAD: usize = 64 << 10;

/// A request or an answer.
#[derive(Debug)]
pub struct Message {
    /// First line and headers, with the empty line that ends them.
    pub head: String,
    /// As it came: with its framing where it came in chunks.
    pub body: Vec<u8>,
}

impl Message {
    /// The next one; `None` where the peer ended in between. The answer to a HEAD has no body,
    /// whatever its head says.
    pub fn read(from: &mut impl Read, to_head: bool) -> io::Result<Option<Self>> {
        let Some(head) = read_until(from, b"\r\n\r\n")? else { return Ok(None) };
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let mut message = Self { head, body: Vec::new() };
        if to_head {
            return Ok(Some(message));
        }
        if let Some(len) = message.header("content-length") {
            message.body = vec![0; len.parse().map_err(io::Error::other)?];
            from.read_exact(&mut message.body)?;
        } else if message.header("transfer-encoding").is_some() {
            loop {
                let size = read_until(from, b"\r\n")?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let digits = String::from_utf8_lossy(&size);
                let len = usize::from_str_radix(digits.trim(), 16).map_err(io::Error::other)?;
                let mut chunk = vec![0; len + 2];
                from.read_exact(&mut chunk)?;
                message.body.extend([size, chunk].concat());
                if len == 0 {
                    break;
                }
            }
        }
        Ok(Some(message))
    }

    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(self.head.as_bytes())?;
        to.write_all(&self.body)?;
        to.flush()
    }

    /// The first line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// Of an answer; 0 where there is none.
    pub fn status(&self) -> u16 {
        self.line().split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    pub fn body_has(&self, needle: &str) -> bool {
        self.body.windows(needle.len()).any(|window| window == needle.as_bytes())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Bytes up to and with an end; `None` where there were none at all.
fn read_until(from: &mut impl Read, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end) {
        match from.read(&mut byte)? {
            0 if bytes.is_empty() => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if bytes.len() >= HEAD => return Err(io::ErrorKind::FileTooLarge.into()),
            _ => bytes.push(byte[0]),
        }
    }
    Ok(Some(bytes))
}
