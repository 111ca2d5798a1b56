//! Every target on its seeds and on some tens of thousands of mutations, in seconds.

use tidegate_fuzz::driver::smoke;
use tidegate_fuzz::{seeds, targets};

macro_rules! targets {
    ($($name:ident: $seeds:expr;)*) => {
        $(#[test]
        fn $name() {
            let seeds = $seeds;
            assert!(!seeds.is_empty());
            let calls = smoke(targets::$name, &seeds);
            println!("{}: {calls} inputs", stringify!($name));
        })*
    };
}

targets! {
    manifest: seeds::manifests();
    snapshot: seeds::snapshots();
    path: seeds::paths();
    selection: seeds::selections();
    sealed: seeds::sealed();
    cover: seeds::covers();
    release: seeds::releases();
    note: seeds::notes();
    entry: seeds::entries();
    batch: seeds::batches();
    certificate: seeds::certificates();
    listing: seeds::listings();
    wire: seeds::messages();
}

/// A seed that its own parser refuses would test nothing.
#[test]
fn the_seeds_are_valid() {
    assert!(seeds::manifests().iter().all(|seed| tidegate_plan::Manifest::parse(seed).is_ok()));
    assert!(
        seeds::snapshots()
            .iter()
            .all(|seed| tidegate_plan::Snapshot::from_bytes(seed.clone()).is_ok())
    );
    assert!(seeds::covers().iter().all(|seed| tidegate_seal::Cover::from_bytes(seed).is_ok()));
    assert!(seeds::releases().iter().all(|seed| tidegate_seal::Release::from_bytes(seed).is_ok()));
    let text = |seed: &Vec<u8>| String::from_utf8(seed.clone()).unwrap();
    assert!(seeds::entries().iter().all(|seed| tidegate_ledger::Entry::parse(&text(seed)).is_ok()));
    assert!(seeds::batches().iter().all(|seed| tidegate_ledger::Batch::parse(seed).is_ok()));
    assert!(
        seeds::listings()
            .iter()
            .all(|seed| { tidegate_ledger::ResultsListing::parse(&text(seed)).is_some() })
    );
    let certificates = seeds::certificates();
    assert!(tidegate_ledger::Stated::parse(&text(&certificates[0])).is_ok());
    assert!(tidegate_ledger::WipeCertificate::parse(&text(&certificates[1])).is_ok());
}
