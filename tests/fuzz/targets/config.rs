//! Configuration files.

use pushline::config::{self, KEYS, Settings};

/// What is accepted can be shown, and what is shown can be read and means the same; what is refused
/// has a reason.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let config = match config::check_text("fuzz.toml", text) {
        Ok(config) => config,
        Err(errors) => {
            assert!(errors.iter().next().is_some(), "refused without a reason");
            assert!(errors.iter().all(|error| !error.to_string().is_empty()));
            return;
        }
    };
    for key in KEYS {
        let shown = key.show(&config.settings);
        let mut again = Settings::default();
        assert!(key.put(&mut again, &shown).is_ok(), "{} = {shown}", key.name);
        assert_eq!(key.show(&again), shown, "{}", key.name);
    }
    // The log accepts these settings.
    let _ = config.settings.log_settings();
}
