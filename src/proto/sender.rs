//! A connection as the sender of events that are for others than itself.

/// A worker, among those of all processes that read the log now or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Drawn at random when the process starts.
    pub process: u64,
    /// The worker's number in that process.
    pub worker: u16,
}

/// A connection, by a name that no other ever has: a slot that is used again has another generation, and
/// a process that starts again another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The worker that owns it.
    pub home: Home,
    /// The connection's slot at that worker.
    pub slot: u32,
    /// The slot's generation.
    pub generation: u32,
}

impl Sender {
    /// No connection at all.
    pub const NOBODY: Self =
        Self { home: Home { process: 0, worker: u16::MAX }, slot: u32::MAX, generation: 0 };

    /// Length of what [`Sender::encode`] appends.
    pub const ENCODED_BYTES: usize = 8 + 2 + 4 + 4;

    /// Appends it in the form in which it is stored.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.home.process.to_le_bytes());
        out.extend_from_slice(&self.home.worker.to_le_bytes());
        out.extend_from_slice(&self.slot.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
    }

    /// `None` if the bytes are not a sender.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (process, rest) = bytes.split_first_chunk()?;
        let (worker, rest) = rest.split_first_chunk()?;
        let (slot, rest) = rest.split_first_chunk()?;
        let generation = u32::from_le_bytes(rest.try_into().ok()?);
        let (process, worker) = (u64::from_le_bytes(*process), u16::from_le_bytes(*worker));
        let slot = u32::from_le_bytes(*slot);
        Some(Self { home: Home { process, worker }, slot, generation })
    }
}
