use super::*;
use proptest::prelude::*;

/// The leaves and roots that the certificate-transparency implementations share.
const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn digests(hex: &[&str]) -> Vec<Digest> {
    hex.iter().map(|h| h.parse().unwrap()).collect()
}

fn known_tree() -> Tree {
    let mut tree = Tree::new();
    for leaf in LEAVES {
        tree.append(leaf_hash(&hex::decode(leaf).unwrap()));
    }
    tree
}

fn counted(n: u64) -> Vec<Digest> {
    (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

fn grown(leaves: &[Digest]) -> Tree {
    let mut tree = Tree::new();
    for (i, leaf) in leaves.iter().enumerate() {
        assert_eq!(tree.append(*leaf), i as u64);
    }
    tree
}

/// MTH, PATH and SUBPROOF word for word from RFC 6962 §2.1.
fn mth(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&mth(left), &mth(right))
        }
    }
}

fn path(m: usize, leaves: &[Digest]) -> Vec<Digest> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(k);
    let (mut proof, last) =
        if m < k { (path(m, left), mth(right)) } else { (path(m - k, right), mth(left)) };
    proof.push(last);
    proof
}

fn subproof(m: usize, leaves: &[Digest], whole: bool) -> Vec<Digest> {
    if m == leaves.len() {
        return if whole { Vec::new() } else { vec![mth(leaves)] };
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(k);
    let (mut proof, last) = if m <= k {
        (subproof(m, left, whole), mth(right))
    } else {
        (subproof(m - k, right, false), mth(left))
    };
    proof.push(last);
    proof
}

#[test]
fn published_roots() {
    let tree = known_tree();
    for (size, root) in (0..).zip(ROOTS) {
        assert_eq!(tree.root_at(size).unwrap().to_string(), root);
    }
    assert_eq!(tree.root_at(9), None);
}

#[test]
fn published_proofs() {
    let tree = known_tree();
    let inclusion = digests(&[
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]);
    assert_eq!(tree.inclusion_proof(5, 8).unwrap(), inclusion);
    let consistency = digests(&[
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]);
    assert_eq!(tree.consistency_proof(6, 8).unwrap(), consistency);
}

#[test]
fn every_small_tree_proves_what_the_definition_says() {
    let leaves = counted(40);
    let tree = grown(&leaves);
    for n in 1..=leaves.len() {
        let size = n as u64;
        let root = mth(&leaves[..n]);
        assert_eq!(tree.root_at(size), Some(root));
        for m in 0..n {
            let proof = tree.inclusion_proof(m as u64, size).unwrap();
            assert_eq!(proof, path(m, &leaves[..n]));
            for other in 0..size {
                let proves = verify_inclusion(&leaves[m], other, size, &proof, &root);
                assert_eq!(proves, other == m as u64, "leaf {m} at {other} of {n}");
            }
        }
        for m in 1..=n {
            let old = m as u64;
            let proof = tree.consistency_proof(old, size).unwrap();
            assert_eq!(proof, subproof(m, &leaves[..n], true));
            let old_root = mth(&leaves[..m]);
            assert!(verify_consistency(old, &old_root, size, &root, &proof));
            assert!(m == n || !verify_consistency(old, &root, size, &root, &proof));
            assert!(m == n || !verify_consistency(old, &old_root, size, &old_root, &proof));
        }
    }
}

#[test]
fn proofs_outside_the_tree_are_none() {
    let tree = grown(&counted(5));
    assert!(tree.inclusion_proof(5, 5).is_none() && tree.inclusion_proof(0, 6).is_none());
    assert!(tree.inclusion_proof(0, 0).is_none() && tree.leaf(5).is_none());
    assert!(tree.consistency_proof(0, 5).is_none() && tree.consistency_proof(4, 6).is_none());
    assert!(tree.consistency_proof(4, 3).is_none());
    let root = tree.root();
    assert!(!verify_inclusion(&root, u64::MAX, u64::MAX, &[], &root));
    assert!(!verify_consistency(0, &root, 5, &root, &[]));
    assert!(!verify_consistency(5, &root, 4, &root, &[]));
    assert!(!verify_consistency(4, &root, 5, &root, &[]));
}

proptest! {
    #[test]
    fn large_trees_agree_with_the_definition(n in 1usize..1500, a in any::<usize>(), b in any::<usize>()) {
        let leaves = counted(n as u64);
        let tree = grown(&leaves);
        let (a, b) = (a % n, b % n);
        let (old, new) = (a.min(b) + 1, a.max(b) + 1);
        prop_assert_eq!(tree.root(), mth(&leaves));
        prop_assert_eq!(tree.inclusion_proof(a as u64, n as u64).unwrap(), path(a, &leaves));
        let proof = tree.consistency_proof(old as u64, new as u64).unwrap();
        prop_assert_eq!(&proof, &subproof(old, &leaves[..new], true));
        prop_assert!(verify_consistency(
            old as u64, &mth(&leaves[..old]), new as u64, &mth(&leaves[..new]), &proof));
        prop_assert_eq!(grown(&leaves[..old]).root_with(&leaves[old..]), tree.root());
    }

    #[test]
    fn a_changed_proof_proves_nothing(n in 2u64..300, index in any::<u64>(), step in any::<usize>(), bit in 0usize..256) {
        let leaves = counted(n);
        let tree = grown(&leaves);
        let index = index % n;
        let mut proof = tree.inclusion_proof(index, n).unwrap();
        let step = step % proof.len();
        let leaf = tree.leaf(index).unwrap();
        let mut changed = *proof[step].as_bytes();
        changed[bit / 8] ^= 1 << (bit % 8);
        let good = std::mem::replace(&mut proof[step], Digest::from_bytes(changed));
        prop_assert!(!verify_inclusion(&leaf, index, n, &proof, &tree.root()));
        proof[step] = good;
        prop_assert!(verify_inclusion(&leaf, index, n, &proof, &tree.root()));
        proof.push(good);
        prop_assert!(!verify_inclusion(&leaf, index, n, &proof, &tree.root()));
        proof.truncate(proof.len() - 2);
        prop_assert!(!verify_inclusion(&leaf, index, n, &proof, &tree.root()));
    }
}
