//! Blocks that another implementation sealed.

use serde::Deserialize;
use tidegate_plan::{LayoutId, LeaseId};
use tidegate_seal::{BlockKey, Context, Kind, open_message};

const VECTORS: &str = include_str!("../../../tests/vectors/sealed_by_pyca.json");

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    key: String,
    place: Place,
    plain_len: u64,
    sealed: String,
}

#[derive(Deserialize)]
struct Place {
    kind: u8,
    lease: LeaseId,
    layout: LayoutId,
    number: u64,
    count: u64,
}

#[test]
fn blocks_sealed_by_pyca_open() {
    let vectors: Vectors = serde_json::from_str(VECTORS).unwrap();
    assert_eq!(vectors.vectors.len(), 4);
    for vector in vectors.vectors {
        let Place { kind, lease, layout, number, count } = vector.place;
        let kind = if kind == 1 { Kind::Block } else { Kind::Manifest };
        let context = Context { kind, lease, layout, number, count };
        let key = BlockKey::from_slice(&hex::decode(&vector.key).unwrap()).unwrap();
        let sealed = hex::decode(&vector.sealed).unwrap();
        let plain = open_message(&key, &context, &sealed).expect(&vector.name);
        let expected: Vec<u8> =
            (0..vector.plain_len).map(|i| (31 * i + i / 251).to_le_bytes()[0]).collect();
        assert_eq!(*plain, expected, "{}", vector.name);
    }
}
