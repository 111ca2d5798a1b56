//! The worker's identity key, in a memory file that its holder keeps: a worker that replaces a killed
//! one is the same worker to the gateway. It opens no data. It is destroyed last.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use crate::client::Identity;

const SEED: usize = 32;

/// The memory file and the key in it.
pub(super) struct KeptIdentity {
    file: File,
}

impl KeptIdentity {
    /// The key of the first worker, made if this is the first.
    pub(super) fn open(file: OwnedFd) -> io::Result<(Self, Identity)> {
        let file = File::from(file);
        let identity = if file.metadata()?.len() == 0 {
            let identity = Identity::generate();
            file.write_all_at(&*identity.seed(), 0)?;
            identity
        } else {
            let mut seed = Zeroizing::new([0; SEED]);
            file.read_exact_at(&mut *seed, 0)?;
            Identity::from_seed(&seed)
        };
        Ok((Self { file }, identity))
    }

    /// Overwrites the key and gives the memory back.
    pub(super) fn destroy(self) -> io::Result<()> {
        self.file.write_all_at(&[0; SEED], 0)?;
        self.file.set_len(0)
    }
}
