//! What may go wrong, how often, and the dice that decide. Every kind of fault draws from a stream
//! of its own: a draw added for one kind changes nothing for the others, so seeds stay meaningful.

use fastrand::Rng;

/// One million: the certain event.
pub const CERTAIN_PPM: u32 = 1_000_000;

/// One way in which the world may treat a worker badly, all within the driver's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A send takes fewer bytes than there is room for: none, some, or all but one.
    ShortSend,
    /// A send is refused as a whole (`EAGAIN`) although there is room.
    RefusedSend,
    /// Received bytes come in pieces of 1 to 16 bytes.
    TinyRecv,
    /// A receive finds no provided buffer although some are free.
    NoBuffers,
    /// A multishot receive ends for no visible reason.
    RecvDisarmed,
    /// Accepting ends: `ECONNABORTED`, or `EMFILE`/`ENFILE` while some slot is in use (otherwise no
    /// slot could become free, and nothing would ever re-arm).
    AcceptFailed,
    /// The connection is reset on both sides.
    Reset,
    /// The side that resets destroys what the other side has not read yet.
    ResetLosesBytes,
    /// A connection is accepted up to [`LATE_MICROS_MAX`] late.
    LateAccept,
    /// Bytes (or their end) are seen up to [`LATE_MICROS_MAX`] late.
    LateRecv,
    /// `RecvStop` and `AcceptStop` take effect up to [`LATE_MICROS_MAX`] late.
    LateStop,
    /// A doorbell arrives only with the sleeper's own timeout, or a second late.
    LateDoorbell,
    /// A doorbell arrives twice.
    DoubleDoorbell,
    /// `Writable` comes although there is no room.
    SpuriousWritable,
    /// Completions were posted before the batch of the same turn took effect, so that they cross
    /// the worker's ops: bytes after a `RecvStop`, anything after a `Close`.
    Crossing,
    /// Ready completions of different sockets come in a different order.
    Reorder,
    /// The kernel hands out a random free slot, not the lowest.
    SlotOrder,
    /// After a turn the worker's thread does not run for up to [`STALL_MICROS_MAX`].
    WorkerStall,
}

/// The longest delay of a completion.
pub const LATE_MICROS_MAX: u64 = 50_000;
/// How long a stalled worker may be kept from running.
pub const STALL_MICROS_MAX: u64 = 5_000_000;

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 18] = [
        Self::ShortSend,
        Self::RefusedSend,
        Self::TinyRecv,
        Self::NoBuffers,
        Self::RecvDisarmed,
        Self::AcceptFailed,
        Self::Reset,
        Self::ResetLosesBytes,
        Self::LateAccept,
        Self::LateRecv,
        Self::LateStop,
        Self::LateDoorbell,
        Self::DoubleDoorbell,
        Self::SpuriousWritable,
        Self::Crossing,
        Self::Reorder,
        Self::SlotOrder,
        Self::WorkerStall,
    ];

    /// The highest chance [`Faults::from_seed`] gives it: high enough to hurt, low enough that a
    /// worker makes progress.
    fn seeded_ppm_max(self) -> u32 {
        match self {
            Self::Reset | Self::WorkerStall => 5_000,
            Self::AcceptFailed | Self::RecvDisarmed | Self::NoBuffers => 100_000,
            Self::LateDoorbell => 200_000,
            Self::ShortSend
            | Self::RefusedSend
            | Self::LateAccept
            | Self::LateRecv
            | Self::LateStop
            | Self::SpuriousWritable => 300_000,
            Self::TinyRecv
            | Self::ResetLosesBytes
            | Self::DoubleDoorbell
            | Self::Crossing
            | Self::Reorder
            | Self::SlotOrder => CERTAIN_PPM,
        }
    }
}

/// How likely each [`Fault`] is, in parts per million of its occasions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    ppm: [u32; Fault::ALL.len()],
}

impl Faults {
    /// A world in which everything works.
    #[must_use]
    pub fn none() -> Self {
        Self { ppm: [0; Fault::ALL.len()] }
    }

    /// About half of the kinds, each with a chance of its own. Leaving kinds out finds more than
    /// always having all of them: some bugs only show when nothing else is wrong.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = stream(seed, u64::MAX);
        Fault::ALL.into_iter().fold(Self::none(), |faults, fault| {
            let ppm = rng.u32(1..=fault.seeded_ppm_max());
            if rng.bool() { faults.with(fault, ppm) } else { faults }
        })
    }

    /// The same, but `fault` happens `ppm` times in a million occasions.
    #[must_use]
    pub fn with(mut self, fault: Fault, ppm: u32) -> Self {
        assert!(ppm <= CERTAIN_PPM, "{fault:?} more often than always");
        self.ppm[fault as usize] = ppm;
        self
    }

    /// The kinds that can happen, with their chances: what a failing run prints.
    pub fn enabled(&self) -> impl Iterator<Item = (Fault, u32)> + '_ {
        Fault::ALL
            .into_iter()
            .map(|fault| (fault, self.ppm[fault as usize]))
            .filter(|(_, ppm)| *ppm > 0)
    }
}

/// The faults of one world and the streams they draw from.
#[derive(Debug)]
pub(super) struct Dice {
    faults: Faults,
    streams: [Rng; Fault::ALL.len()],
    /// How many have happened.
    pub(super) happened: u64,
}

impl Dice {
    pub(super) fn new(faults: Faults, seed: u64) -> Self {
        let streams = Fault::ALL.map(|fault| stream(seed, fault as u64));
        Self { faults, streams, happened: 0 }
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Decides whether it happens this time. Kinds that never happen draw nothing.
    pub(super) fn hits(&mut self, fault: Fault) -> bool {
        let ppm = self.faults.ppm[fault as usize];
        let happens = ppm > 0 && self.streams[fault as usize].u32(0..CERTAIN_PPM) < ppm;
        self.happened += u64::from(happens);
        happens
    }

    /// Draws the details of a fault that happens.
    pub(super) fn details(&mut self, fault: Fault) -> &mut Rng {
        &mut self.streams[fault as usize]
    }
}

/// An independent stream of the same seed (the finaliser of SplitMix64 spreads near seeds apart).
pub(super) fn stream(seed: u64, concern: u64) -> Rng {
    let mut z = seed ^ concern.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    Rng::with_seed(z ^ (z >> 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_of_one_fault_do_not_move_those_of_another() {
        let draws = |of: Fault, beside: Option<Fault>| {
            let faults = Faults::none().with(of, 500_000);
            let faults = beside.map_or(faults, |beside| faults.with(beside, 500_000));
            let mut dice = Dice::new(faults, 7);
            let mut draw = || {
                beside.map(|beside| (dice.hits(beside), dice.details(beside).u64(..)));
                (dice.hits(of), dice.details(of).u64(..))
            };
            (0..8).map(|_| draw()).collect::<Vec<_>>()
        };
        for of in Fault::ALL {
            for beside in Fault::ALL.into_iter().filter(|beside| *beside != of) {
                assert_eq!(draws(of, None), draws(of, Some(beside)), "{of:?} beside {beside:?}");
                assert_ne!(draws(of, None), draws(beside, None));
            }
        }
    }

    #[test]
    fn seeds_choose_subsets_and_every_fault_is_in_some() {
        let mut seen = [0; Fault::ALL.len()];
        for seed in 0..100 {
            let faults = Faults::from_seed(seed);
            assert_eq!(faults, Faults::from_seed(seed));
            faults.enabled().for_each(|(fault, _)| seen[fault as usize] += 1);
        }
        assert!(seen.iter().all(|times| (25..75).contains(times)), "{seen:?}");
        assert_eq!(Faults::none().enabled().count(), 0);
    }
}
