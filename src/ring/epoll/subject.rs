//! What an event is about, packed into the 64 bits the kernel carries there and back:
//! kind (8 bits), life of the slot (16 bits), index of the slot or listener (32 bits).

use rustix::event::epoll::EventData;

const LIFE_SHIFT: u32 = u32::BITS;
const KIND_SHIFT: u32 = 56;

const BELL: u64 = 1;
const LISTENER: u64 = 2;
const SLOT: u64 = 3;

/// What epoll watches for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Bell,
    Listener(u32),
    Slot { index: u32, life: u16 },
}

impl Subject {
    pub fn pack(self) -> EventData {
        EventData::new_u64(match self {
            Self::Bell => BELL << KIND_SHIFT,
            Self::Listener(index) => LISTENER << KIND_SHIFT | u64::from(index),
            Self::Slot { index, life } => {
                SLOT << KIND_SHIFT | u64::from(life) << LIFE_SHIFT | u64::from(index)
            }
        })
    }

    /// The reverse of [`Subject::pack`].
    pub fn unpack(data: EventData) -> Self {
        let data = data.u64();
        let index = (data & u64::from(u32::MAX)) as u32;
        match data >> KIND_SHIFT {
            BELL => Self::Bell,
            LISTENER => Self::Listener(index),
            SLOT => Self::Slot { index, life: (data >> LIFE_SHIFT & u64::from(u16::MAX)) as u16 },
            kind => unreachable!("nothing of kind {kind} is watched"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_survives_the_packing() {
        let mut subjects = vec![Subject::Bell];
        for index in [0, 1, u32::MAX] {
            subjects.push(Subject::Listener(index));
            subjects.extend([0, 1, u16::MAX].map(|life| Subject::Slot { index, life }));
        }
        for subject in subjects {
            assert_eq!(Subject::unpack(subject.pack()), subject);
        }
    }
}
