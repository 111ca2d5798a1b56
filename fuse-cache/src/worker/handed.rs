//! What came with the start message, sorted.

use std::os::fd::OwnedFd;

use crate::control::ResultsStart;

/// The descriptors behind a start message.
pub(super) struct HandedOver {
    pub(super) identity: OwnedFd,
    pub(super) journal: Option<OwnedFd>,
    pub(super) data: Vec<OwnedFd>,
    pub(super) results: Vec<OwnedFd>,
}

impl HandedOver {
    pub(super) fn sort(results: Option<&ResultsStart>, descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let identity = descriptors.next()?;
        let (journal, devices) = match results {
            Some(results) => (Some(descriptors.next()?), results.devices),
            None => (None, 0),
        };
        let mut data: Vec<_> = descriptors.collect();
        let results = data.split_off(data.len().checked_sub(devices)?);
        Some(Self { identity, journal, data, results })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    fn descriptors(many: usize) -> Vec<OwnedFd> {
        (0..many).map(|_| tempfile::tempfile().unwrap().into()).collect()
    }

    fn results(devices: usize) -> ResultsStart {
        ResultsStart {
            devices,
            at: "/results".into(),
            mount_id: None,
            init: Vec::new().into(),
            spool_bytes: None,
            asynchronous: false,
            required: true,
        }
    }

    #[test]
    fn each_descriptor_finds_its_place() {
        let given = descriptors(7);
        let numbers: Vec<_> = given.iter().map(|fd| fd.as_raw_fd()).collect();
        let sorted = HandedOver::sort(Some(&results(2)), given).unwrap();
        let of = |fds: &[OwnedFd]| fds.iter().map(|fd| fd.as_raw_fd()).collect::<Vec<_>>();
        assert_eq!(sorted.identity.as_raw_fd(), numbers[0]);
        assert_eq!(sorted.journal.unwrap().as_raw_fd(), numbers[1]);
        assert_eq!(of(&sorted.data), numbers[2..5]);
        assert_eq!(of(&sorted.results), numbers[5..]);
        let sorted = HandedOver::sort(None, descriptors(3)).unwrap();
        assert!(sorted.journal.is_none() && sorted.results.is_empty());
        assert_eq!(sorted.data.len(), 2);
    }

    #[test]
    fn too_few_are_noticed() {
        assert!(HandedOver::sort(None, Vec::new()).is_none());
        assert!(HandedOver::sort(Some(&results(2)), descriptors(1)).is_none());
        assert!(HandedOver::sort(Some(&results(2)), descriptors(3)).is_none());
    }
}
