//! What is secret leaves no copies in the program's memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use memchr::memmem;
use rustls::DEFAULT_VERSIONS;

use super::Client;
use crate::common::identity::Identity;
use crate::common::skip_anywhere;
use crate::start::Program;

const PAGE_BYTES: u64 = 4096;
/// Of an entry of `/proc/PID/pagemap`: the page has content.
const PRESENT: u64 = 1 << 63;

/// All that a process has written to.
struct Memory(Vec<u8>);

impl Memory {
    fn of(process: u32) -> std::io::Result<Self> {
        let open = |name| File::open(format!("/proc/{process}/{name}"));
        let (memory, present) = (open("mem")?, open("pagemap")?);
        let mut all = Vec::new();
        for line in fs::read_to_string(format!("/proc/{process}/maps"))?.lines() {
            let (range, rest) = line.split_once(' ').expect("a range and more");
            let (from, to) = range.split_once('-').expect("its ends");
            let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).expect("hex"));
            if !rest.starts_with("rw-p") {
                continue;
            }
            for page in (from..to).step_by(PAGE_BYTES as usize) {
                let mut entry = [0; 8];
                present.read_exact_at(&mut entry, page / PAGE_BYTES * 8)?;
                if u64::from_ne_bytes(entry) & PRESENT != 0 {
                    let at = all.len();
                    all.resize(at + PAGE_BYTES as usize, 0);
                    memory.read_exact_at(&mut all[at..], page)?;
                }
            }
        }
        Ok(Self(all))
    }

    fn has(&self, text: &[u8]) -> bool {
        memmem::find(&self.0, text).is_some()
    }
}

#[test]
fn the_text_of_a_key_and_that_of_the_tickets_secret_are_wiped() {
    let identity = Identity::new(&["localhost"]);
    let tickets = identity.folder().join("tickets");
    // The secret is used, and so is there, but without the line's end.
    let secret = "7dW1eZ0vQ4tXb9Kp2MsRj6Yc8Gh3Nf5L".repeat(100) + "-to-the-end\n";
    fs::write(&tickets, &secret).expect("written");
    let tickets = tickets.to_str().expect("text");
    let mut options = identity.options(0);
    options.extend(["--tls-ticket-key-file".to_owned(), tickets.to_owned()]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let program = Program::start(&options);
    let at = program.address("listening for clients with TLS");
    assert!(Client::connect(at, identity.client(DEFAULT_VERSIONS), "localhost").is_ok());
    let Ok(memory) = Memory::of(program.id()) else {
        return skip_anywhere("another process's memory", "let a parent trace its children");
    };
    let key = fs::read(identity.key_file()).expect("a key");
    let end = memmem::find(&key, b"-----END").expect("PEM");
    assert!(memory.has(tickets.as_bytes()), "what it has is found");
    assert!(!memory.has(&key[end - 20..end + 8]), "the text of the key");
    assert!(
        !memory.has(&secret.as_bytes()[secret.len() - 40..]),
        "the text of the tickets' secret"
    );
}
