//! A rank gets its own share's names, blocks and keys, and no others': shown by trying.

use tidegate_ledger::Event;
use tidegate_plan::{LayoutId, Manifest};
use tidegate_seal::{BlockKey, Context, Kind, Release, open_message};
use tidegate_wire::{LeaseTerms, ProblemKind};

use crate::worker::{Home, Worker};

/// Every key that follows from a release.
fn keys(release: &Release) -> Vec<BlockKey> {
    let leaves = release.cover.leaves().map(|(_, key)| key);
    leaves.chain(BlockKey::from_slice(release.manifest_key.expose())).collect()
}

fn context(terms: &LeaseTerms, kind: Kind, number: u64, count: u64) -> Context {
    Context { kind, lease: terms.lease, layout: terms.layout, number, count }
}

/// Whether any of the keys opens it, whatever it is taken for.
fn opens(keys: &[BlockKey], terms: &LeaseTerms, sealed: &[u8]) -> bool {
    let places = (0..u64::from(terms.blocks)).flat_map(|number| {
        [
            context(terms, Kind::Block, number, terms.blocks.into()),
            context(terms, Kind::Manifest, number, 1),
        ]
    });
    let places: Vec<_> = places.collect();
    keys.iter().any(|key| places.iter().any(|place| open_message(key, place, sealed).is_ok()))
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_neither_fetches_nor_opens_what_is_anothers() {
    let home = Home::start().await;
    let granted = home.grant_ranks(2).await;
    let (mut curious, mut other) =
        (Worker::new(&home, &granted.joins[0]), Worker::new(&home, &granted.joins[1]));
    let mine = curious.attach().await.unwrap().terms;
    let theirs = other.attach().await.unwrap().terms;
    assert!(mine.end_block == theirs.first_block && theirs.first_block < theirs.end_block);

    // What the other rank gets by right.
    let (_, their_release) = other.keys(theirs.first_block, theirs.end_block).await;
    let their_manifest = other.get("manifest").await.body;
    let their_block = other.get(&format!("blocks/{}", theirs.first_block)).await.body;
    let (_, my_release) = curious.keys(mine.first_block, mine.end_block).await;

    // Its blocks and keys, by number.
    let mut tries = 0;
    for block in theirs.first_block..theirs.end_block {
        let answer = curious.get(&format!("blocks/{block}")).await;
        assert_eq!(answer.problem(), ProblemKind::Forbidden);
        tries += 1;
    }
    let windows = [
        (theirs.first_block, theirs.end_block),
        (mine.first_block, theirs.end_block),
        (theirs.end_block - 1, theirs.end_block),
        (theirs.end_block, theirs.end_block),
    ];
    for (first, end) in windows {
        let answer = curious.ask_keys(first, end).await;
        assert_eq!(answer.problem(), ProblemKind::Forbidden, "{first}..{end}");
        tries += 1;
    }
    // Its manifest: the certificate says whose it is, and nothing in the request can say otherwise.
    for rest in ["manifest/1", "ranks/1/manifest", "manifest/../1"] {
        assert_eq!(curious.get(rest).await.problem(), ProblemKind::NotFound, "{rest}");
    }
    for rest in ["manifest", "manifest?rank=1", "manifest?token=1"] {
        let answer = curious.get(rest).await;
        let place = context(&mine, Kind::Manifest, 0, 1);
        let plain = open_message(&my_release.manifest_key, &place, &answer.body).unwrap();
        assert_eq!(plain.len() as u64, mine.manifest_len);
        assert!(holds(&plain, "large") && !holds(&plain, "small-39"), "{rest}");
        Manifest::parse(plain.to_vec()).unwrap();
    }
    // The other's token without its secret.
    let mut borrowed = Worker::new(&home, &granted.joins[0]);
    borrowed.join.token = granted.joins[1].token;
    assert_eq!(borrowed.attach().await, Err(ProblemKind::Unauthenticated));

    // With the sealed bytes in hand, as one who listens on the disk or on the road.
    let (my_keys, their_keys) = (keys(&my_release), keys(&their_release));
    for sealed in [&their_manifest, &their_block] {
        assert!(opens(&their_keys, &theirs, sealed), "who may open it opens it");
        assert!(!opens(&my_keys, &theirs, sealed));
        let elsewhere = LeaseTerms { layout: LayoutId::from_bytes([0; 32]), ..theirs.clone() };
        assert!(!opens(&their_keys, &elsewhere, sealed), "and nowhere else");
    }

    home.gateway.shutdown().await;
    let refused = home.events().await.into_iter().filter_map(|event| match event {
        Event::Refused { lease, reason, count } => Some((lease, reason, count)),
        _ => None,
    });
    let refused: Vec<_> = refused.collect();
    assert!(refused.iter().all(|(lease, reason, _)| {
        (lease, reason.as_str()) == (&Some(granted.lease), "outside-share")
    }));
    assert_eq!(refused.iter().map(|(_, _, count)| count).sum::<u64>(), tries, "{refused:?}");
}
