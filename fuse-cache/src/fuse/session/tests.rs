use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc;
use std::time::Duration;

use fuser::{INodeNo, ReplyEntry, Request};
use rustix::net::{RecvFlags, SendFlags, recv, send, socketpair};

use super::*;

const LONGEST_WRITE: usize = 1 << 20;
const LOOKUP: u32 = 1;
const INIT: u32 = 26;
/// Length of `fuse_in_header`.
const HEADER: usize = 40;

/// Says which pages of its thread's buffer are there.
struct Looking(mpsc::Sender<Vec<bool>>);

impl Filesystem for Looking {
    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.0.send(pages_of(name.as_bytes().as_ptr() as usize - HEADER, LONGEST_WRITE)).unwrap();
        reply.error(fuser::Errno::ENOENT);
    }
}

/// Whether each page of so many bytes is in memory (`pagemap`, bit 63: proc_pid_pagemap(5)).
fn pages_of(address: usize, bytes: usize) -> Vec<bool> {
    let page = rustix::param::page_size();
    let (first, last) = (address / page, (address + bytes - 1) / page);
    let mut entries = vec![0; (last - first + 1) * 8];
    let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
    pagemap.read_exact_at(&mut entries, first as u64 * 8).unwrap();
    entries.chunks(8).map(|entry| entry[7] & 0x80 != 0).collect()
}

/// `fuse_in_header`, and what follows it.
fn request(opcode: u32, unique: u64, rest: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend_from_slice(&u32::try_from(HEADER + rest.len()).unwrap().to_ne_bytes());
    request.extend_from_slice(&opcode.to_ne_bytes());
    request.extend_from_slice(&unique.to_ne_bytes());
    request.extend_from_slice(&1_u64.to_ne_bytes());
    request.extend_from_slice(&[0; 16]);
    request.extend_from_slice(rest);
    request
}

fn init() -> Vec<u8> {
    let mut version = [0; 16];
    version[..4].copy_from_slice(&7_u32.to_ne_bytes());
    version[4..8].copy_from_slice(&31_u32.to_ne_bytes());
    request(INIT, 1, &version)
}

/// Two ends of what is like `/dev/fuse`.
fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

#[test]
fn a_thread_has_its_buffer_before_its_first_request() {
    let mut all = Vec::new();
    for _ in 0..8 {
        let (kernel, device) = pair();
        let (found, looks) = mpsc::channel();
        let session = adopt(Looking(found), &init()).unwrap();
        // It waits there before anybody reads, as what is sent again does.
        send(&kernel, &request(LOOKUP, 2, b"name\0"), SendFlags::empty()).unwrap();
        let running = start(session, &device, LONGEST_WRITE).unwrap();
        let pages = looks.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(pages.iter().all(|there| *there), "{pages:?}");
        let mut answer = [0; 64];
        let (len, _) = recv(&kernel, &mut answer, RecvFlags::empty()).unwrap();
        assert_eq!((len, &answer[8..16]), (16, &2_u64.to_ne_bytes()[..]));
        // None gets the memory of one before it.
        all.push((running, kernel));
    }
    for (running, kernel) in all {
        drop(kernel);
        running.join().unwrap_err();
    }
}

#[test]
fn a_thread_that_does_not_begin_holds_nobody_up() {
    let (done, went_on) = mpsc::channel();
    thread::spawn(move || {
        // Full to the last byte, and nobody reads.
        First::of(LONGEST_WRITE).unwrap().go_on();
        done.send(()).unwrap();
    });
    went_on.recv_timeout(Duration::from_secs(30)).unwrap();
}
