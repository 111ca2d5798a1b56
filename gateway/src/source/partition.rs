//! Listing a bucket in parallel, by prefixes.
//!
//! The upper levels are listed with a delimiter to learn their directories; what lies below those
//! is listed flat, many prefixes at a time. Parts are told apart by prefix alone, so nothing here
//! depends on the order in which a store lists.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;

use tokio::task::JoinSet;

/// Requests under way at once.
const REQUESTS: usize = 16;
/// Levels that are searched for directories.
const LEVELS: usize = 4;
/// A level with as many directories or more gives enough work: they are listed flat.
const ENOUGH: usize = 16;
/// Most parts that one level is cut into; more directories are taken together.
const PARTS: usize = 64;

/// One request for one page.
#[derive(Clone, Debug)]
pub(super) struct Ask<C> {
    pub(super) prefix: String,
    /// Roll up what lies below the next `/`.
    pub(super) delimited: bool,
    pub(super) cursor: Option<C>,
}

#[derive(Debug)]
pub(super) struct Page<T, C> {
    pub(super) items: Vec<T>,
    /// Rolled-up directories, each longer than the prefix asked for and with a `/` at its end.
    pub(super) directories: Vec<String>,
    pub(super) next: Option<C>,
}

pub(super) trait Keyed {
    fn key(&self) -> &[u8];
}

/// Fetches all pages below `root`. `fetch` refuses pages that do not advance.
pub(super) async fn list<T, C, E, F, P>(root: &str, fetch: F) -> Result<Vec<T>, E>
where
    T: Keyed + Send + 'static,
    C: Send + 'static,
    E: Send + 'static,
    F: Fn(Ask<C>) -> P + Clone + Send + 'static,
    P: Future<Output = Result<Page<T, C>, E>> + Send + 'static,
{
    let mut waiting = VecDeque::from([Part { prefix: root.to_owned(), level: 0, delimited: true }]);
    let mut running = JoinSet::new();
    let mut all = Vec::new();
    loop {
        while running.len() < REQUESTS
            && let Some(part) = waiting.pop_front()
        {
            running.spawn(part.list(fetch.clone()));
        }
        let Some(listed) = running.join_next().await else { return Ok(all) };
        let (part, items, directories) = match listed {
            Ok(listed) => listed?,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Cancelled: the runtime is going down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        };
        let (prefixes, whole) = together(&part.prefix, directories);
        let covered = |item: &T| prefixes.iter().any(|p| item.key().starts_with(p.as_bytes()));
        // A directory's name begins no other key of its level; a cut name may.
        all.extend(items.into_iter().filter(|item| whole || !covered(item)));
        let level = part.level + 1;
        let delimited = whole && prefixes.len() < ENOUGH && level < LEVELS;
        waiting.extend(prefixes.into_iter().map(|prefix| Part { prefix, level, delimited }));
    }
}

struct Part {
    prefix: String,
    level: usize,
    delimited: bool,
}

impl Part {
    async fn list<T, C, E, F, P>(self, fetch: F) -> Result<(Self, Vec<T>, Vec<String>), E>
    where
        F: Fn(Ask<C>) -> P,
        P: Future<Output = Result<Page<T, C>, E>>,
    {
        let (mut items, mut directories, mut cursor) = (Vec::new(), Vec::new(), None);
        loop {
            let ask = Ask { prefix: self.prefix.clone(), delimited: self.delimited, cursor };
            let page = fetch(ask).await?;
            items.extend(page.items);
            directories.extend(page.directories);
            if page.next.is_none() {
                return Ok((self, items, directories));
            }
            cursor = page.next;
        }
    }
}

/// At most [`PARTS`] prefixes that cover all `directories` of one level and do not overlap: the
/// directories themselves (`true`), or their names cut to as many characters as that allows.
fn together(level: &str, directories: Vec<String>) -> (Vec<String>, bool) {
    if directories.len() <= PARTS {
        return (directories, true);
    }
    let mut best = BTreeSet::from([level]);
    for characters in 1.. {
        let cut: BTreeSet<&str> = directories
            .iter()
            .map(|name| {
                let below = &name[level.len()..];
                let end = below.char_indices().nth(characters).map_or(below.len(), |(at, _)| at);
                &name[..level.len() + end]
            })
            .collect();
        if cut.len() > PARTS {
            break;
        }
        best = cut;
    }
    (best.into_iter().map(str::to_owned).collect(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Key(String);

    impl Keyed for Key {
        fn key(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }

    /// Pages of 3 over sorted or unsorted keys, as a store makes them.
    fn page(keys: &[String], ask: &Ask<usize>) -> Page<Key, usize> {
        let mut seen = BTreeSet::new();
        let mut rows = Vec::new();
        for key in keys.iter().filter(|key| key.starts_with(&ask.prefix)) {
            let slash = key[ask.prefix.len()..].find('/').map(|at| ask.prefix.len() + at + 1);
            match slash.filter(|_| ask.delimited) {
                Some(end) => {
                    if seen.insert(&key[..end]) {
                        rows.push(Err(key[..end].to_owned()));
                    }
                }
                None => rows.push(Ok(Key(key.clone()))),
            }
        }
        let from = ask.cursor.unwrap_or(0);
        let next = (rows.len() > from + 3).then_some(from + 3);
        let (mut items, mut directories) = (Vec::new(), Vec::new());
        for row in rows.into_iter().skip(from).take(3) {
            match row {
                Ok(key) => items.push(key),
                Err(directory) => directories.push(directory),
            }
        }
        Page { items, directories, next }
    }

    async fn check(root: &str, keys: Vec<String>) {
        let keys = std::sync::Arc::new(keys);
        let of = std::sync::Arc::clone(&keys);
        let listed = list(root, move |ask: Ask<usize>| {
            let page = page(&of, &ask);
            async move { Ok::<_, ()>(page) }
        });
        let mut listed: Vec<_> = listed.await.unwrap().into_iter().map(|key| key.0).collect();
        let mut expected: Vec<_> =
            keys.iter().filter(|key| key.starts_with(root)).cloned().collect();
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected);
    }

    #[tokio::test]
    async fn every_key_is_listed_once() {
        check("", vec![]).await;
        check("", ["a", "b/", "b/c", "b//d", "/lead", "b/c/d/e/f/g/h/i"].map(str::to_owned).into())
            .await;
        check("p/", ["p/", "p/x", "q/y", "p/a/b"].map(str::to_owned).into()).await;
        // More directories than parts, among files that share their first letters; listed backwards.
        let mut many: Vec<String> =
            (0..300).flat_map(|n| [format!("t/n{n:03}/a"), format!("t/n{n:03}/b/c")]).collect();
        many.extend(["t/n", "t/n0", "t/n12x", "t/m", "t/ü", "t/n300"].map(str::to_owned));
        many.extend((0..90).map(|n| format!("t/{}ü/x", char::from(b'!' + n))));
        many.retain(|key| !key.starts_with("t///"));
        many.reverse();
        check("t/", many.clone()).await;
        check("", many).await;
    }

    #[test]
    fn prefixes_taken_together_cover_all_and_do_not_overlap() {
        let names: Vec<_> = (0..1000).map(|n| format!("l/n{n:05}/")).collect();
        let (parts, whole) = together("l/", names.clone());
        assert!(!whole && (2..=PARTS).contains(&parts.len()));
        for name in &names {
            assert_eq!(parts.iter().filter(|part| name.starts_with(*part)).count(), 1, "{name}");
        }
        // Nothing to cut by: the level as a whole.
        let wide = (0..200).map(|n| format!("l/{}/", char::from_u32(0x4e00 + n).unwrap()));
        assert_eq!(together("l/", wide.collect()), (vec!["l/".to_owned()], false));
    }
}
