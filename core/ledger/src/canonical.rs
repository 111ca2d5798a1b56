//! Canonical JSON: RFC 8785 (JCS) without floating-point numbers.
//!
//! Keys sorted, no white space, shortest escapes. Integers are exact in 64 bits, which JCS would
//! cut at 2^53; our byte counts and seconds stay far below. Reading is by comparison: a text is
//! canonical when writing what was read gives the same text again, so duplicate keys, unknown
//! keys, other orders and other escapes are all refused in one place.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CanonicalError {
    #[error("canonical JSON holds no floating-point numbers")]
    Float,
    #[error("the text is JSON of this type but not in canonical form")]
    NotCanonical,
    #[error("not JSON of the expected type")]
    Syntax(#[from] serde_json::Error),
}

/// Writes a value as canonical JSON.
pub fn to_canonical<T: Serialize>(value: &T) -> Result<String, CanonicalError> {
    let mut out = String::new();
    write(&serde_json::to_value(value)?, &mut out)?;
    Ok(out)
}

/// Reads a value whose text must be exactly what [`to_canonical`] would write.
pub(crate) fn from_canonical<T: Serialize + DeserializeOwned>(
    text: &str,
) -> Result<T, CanonicalError> {
    let value: T = serde_json::from_str(text)?;
    if to_canonical(&value)? != text {
        return Err(CanonicalError::NotCanonical);
    }
    Ok(value)
}

fn write(value: &Value, out: &mut String) -> Result<(), CanonicalError> {
    match value {
        Value::Number(n) if n.is_f64() => return Err(CanonicalError::Float),
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
        Value::String(text) => out.push_str(&serde_json::to_string(text)?),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Object(map) => {
            // Sorted here, since the map keeps insertion order when any crate asks serde_json to.
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_unstable_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (i, (key, item)) in fields.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::to_string(key)?);
                out.push(':');
                write(item, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_and_strings_escaped_shortest() {
        let value =
            json!({"b": [1, -2, null, true], "a\u{e9}": "\u{1}\n\"\\/é", "a": {}, "": u64::MAX});
        assert_eq!(
            to_canonical(&value).unwrap(),
            "{\"\":18446744073709551615,\"a\":{},\"aé\":\"\\u0001\\n\\\"\\\\/é\",\"b\":[1,-2,null,true]}"
        );
    }

    #[test]
    fn floats_are_refused() {
        assert!(matches!(to_canonical(&json!({"a": 1.5})), Err(CanonicalError::Float)));
    }

    #[test]
    fn only_the_canonical_text_is_read() {
        type Map = std::collections::BTreeMap<String, u64>;
        assert!(from_canonical::<Map>(r#"{"a":1,"b":2}"#).is_ok());
        for text in [
            r#"{"b":2,"a":1}"#,
            r#"{"a":1,"a":1,"b":2}"#,
            r#"{"a":1, "b":2}"#,
            r#"{"a":1,"b":2} "#,
            r#"{"\u0061":1,"b":2}"#,
            r#"{"a":1,"b":2.0}"#,
            r#"{"a":1,"b":2"#,
            "",
        ] {
            assert!(from_canonical::<Map>(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = from_canonical::<Value>(&text);
        }
    }
}
