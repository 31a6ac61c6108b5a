//! How values are written: counts, sizes, durations and words with a meaning. Everything shown here
//! can be read here.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A value that is not acceptable; says what is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit(String);

impl Unfit {
    /// Says what would be acceptable: "a size, as 64MiB".
    pub fn wants(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// Also allows this word.
    fn or_word(self, word: &str) -> Self {
        Self(format!("{}, or {word}", self.0))
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wanted: {}", self.0)
    }
}

impl std::error::Error for Unfit {}

/// A whole number within bounds.
pub fn count<T: TryFrom<u64>>(text: &str, range: RangeInclusive<u64>) -> Result<T, Unfit> {
    let number = digits(text).filter(|number| range.contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| Unfit(format!("a number from {} to {}", range.start(), range.end())))
}

/// A number of bytes within bounds, as `64KiB`.
pub fn size<T: TryFrom<u64>>(text: &str, range: RangeInclusive<u64>) -> Result<T, Unfit> {
    let number = bytes(text).filter(|number| range.contains(number));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
        let (least, most) = (show_size(*range.start()), show_size(*range.end()));
        let meant = binary_unit(text)
            .map_or_else(String::new, |binary| format!(": {binary} (by 1024), not {text}"));
        Unfit(format!("a size from {least} to {most}, with B, KiB, MiB or GiB{meant}"))
    })
}

/// A span of time within bounds, as `25s`.
pub fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, Unfit> {
    let parsed = humantime::parse_duration(text).ok();
    parsed.filter(|duration| range.contains(duration)).ok_or_else(|| {
        let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
        Unfit(format!("a time from {least} to {most}, with its unit, as 250ms, 25s or 5m"))
    })
}

/// This word for `None`, or a value.
pub fn unless<T>(
    word: &str,
    text: &str,
    read: impl Fn(&str) -> Result<T, Unfit>,
) -> Result<Option<T>, Unfit> {
    if text == word {
        return Ok(None);
    }
    read(text).map(Some).map_err(|unfit| unfit.or_word(word))
}

/// A limit per second; 0 means none.
pub fn rate(text: &str) -> Result<Option<u32>, Unfit> {
    let number: u32 = count(text, 0..=RATE_MAX)?;
    Ok((number > 0).then_some(number))
}

/// Any higher rate would not be a limit.
const RATE_MAX: u64 = 100_000_000;

/// `true` or `false`.
pub fn switch(text: &str) -> Result<bool, Unfit> {
    word(text, &[("true", true), ("false", false)])
}

/// One of these words.
pub fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Unfit> {
    let known = words.iter().find(|(word, _)| *word == text);
    known.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Unfit(format!("one of {}", names.join(", ")))
    })
}

/// The word for this value.
pub fn show_word<T: Copy + PartialEq>(value: T, words: &[(&str, T)]) -> String {
    words.iter().find(|(_, of)| *of == value).map_or("", |(word, _)| word).to_owned()
}

/// Core numbers, as `0,2,4-7`.
pub fn cores(text: &str) -> Result<Vec<usize>, Unfit> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (digits(first.trim()), digits(last.trim()));
        match (first, last) {
            (Some(first), Some(last)) if first <= last && last < CORES_MAX => {
                cores.extend((first..=last).map(|core| core as usize));
            }
            _ => return Err(Unfit(format!("cores below {CORES_MAX} as 0,2,4-7"))),
        }
    }
    cores.truncate(CORES_MAX as usize);
    Ok(cores)
}

/// The highest core that an affinity mask of the kernel can name.
const CORES_MAX: u64 = 1024;

/// In the largest unit that leaves a whole number.
pub fn show_size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "B"));
    format!("{}{name}", bytes / unit)
}

/// In the largest unit that leaves a whole number.
pub fn show_duration(duration: Duration) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let ms = duration.as_millis();
    if duration.is_zero() || !duration.subsec_nanos().is_multiple_of(1_000_000) {
        return humantime::format_duration(duration).to_string();
    }
    let unit = units.into_iter().find(|(unit, _)| ms.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "ms"));
    format!("{}{name}", ms / unit)
}

fn digits(text: &str) -> Option<u64> {
    // `parse` alone would accept a plus sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match &text[end..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits(&text[..end])?.checked_mul(unit)
}

/// How a size in thousands, or in an ambiguous unit, must be written here. Some read `MB` as a
/// million bytes and some as 1 MiB, so we do not guess.
fn binary_unit(text: &str) -> Option<String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let initial = match unit.to_ascii_lowercase().as_str() {
        "k" | "kb" => 'K',
        "m" | "mb" => 'M',
        "g" | "gb" => 'G',
        _ => return None,
    };
    (!number.is_empty()).then(|| format!("{number}{initial}iB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: RangeInclusive<u64> = 0..=u64::MAX;

    #[test]
    fn sizes_are_read_as_they_are_shown() {
        for (text, bytes) in [
            ("0B", 0),
            ("1B", 1),
            ("1023B", 1023),
            ("1KiB", 1024),
            ("64KiB", 65_536),
            ("1025KiB", 1_049_600),
            ("256MiB", 1 << 28),
            ("3GiB", 3 << 30),
        ] {
            assert_eq!(size::<u64>(text, ALL), Ok(bytes));
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(size::<u64>("4096", ALL), Ok(4096));
        for bad in ["", "KiB", "-1", "+1", "1kb", "1 KiB", "1.5MiB", "99999999999GiB", "٣B"] {
            assert!(size::<u64>(bad, ALL).is_err(), "{bad}");
        }
        assert!(size::<u32>("4GiB", ALL).is_err(), "does not fit its field");
    }

    #[test]
    fn durations_are_read_as_they_are_shown() {
        let any = Duration::ZERO..=Duration::MAX;
        for (text, ms) in [
            ("0s", 0),
            ("1ms", 1),
            ("25s", 25_000),
            ("75s", 75_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(duration(text, any.clone()), Ok(Duration::from_millis(ms)));
            assert_eq!(show_duration(Duration::from_millis(ms)), text);
        }
        let odd = Duration::new(3, 7);
        assert_eq!(duration(&show_duration(odd), any.clone()), Ok(odd));
        for bad in ["", "25", "-1s", "1 fortnight"] {
            assert!(duration(bad, any.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn bounds_hold_on_both_sides_and_are_named() {
        assert_eq!(count::<u16>("1", 1..=1024), Ok(1));
        assert_eq!(count::<u16>("1024", 1..=1024), Ok(1024));
        for bad in ["0", "1025", "70000", "x", ""] {
            let unfit = count::<u16>(bad, 1..=1024).expect_err(bad);
            assert_eq!(unfit.to_string(), "wanted: a number from 1 to 1024");
        }
        let auto = unless("auto", "many", |text| count::<u16>(text, 1..=9)).expect_err("no");
        assert_eq!(auto.to_string(), "wanted: a number from 1 to 9, or auto");
    }

    #[test]
    fn cores_come_alone_and_in_ranges() {
        assert_eq!(cores("0,2,4-6"), Ok(vec![0, 2, 4, 5, 6]));
        for bad in ["", "a", "3-1", "1024", "0-99999999999", "1,,2", "-"] {
            assert!(cores(bad).is_err(), "{bad}");
        }
    }
}
