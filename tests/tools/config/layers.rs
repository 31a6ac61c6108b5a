//! An option overrides the environment, that the file, and that the default.

use std::time::Duration;

use pushline::config::{ChannelSettings, Settings, SlowPolicy};

use super::*;

fn bounds<'s>(settings: &'s Settings, channel: &str) -> &'s ChannelSettings {
    settings.channel_at(settings.channel_index(channel))
}

#[test]
fn every_key_can_be_set_in_the_file_as_text_and_bare() {
    for key in KEYS {
        let value = another(key);
        let quoted = format!("{} = \"{value}\"", key.name);
        let config = assemble(&quoted, &[], &[]).expect(&quoted);
        assert_eq!(key.show(&config.settings), value);
        if matches!(key.value, "N" | "true|false") {
            let bare = format!("{} = {value}", key.name);
            let config = assemble(&bare, &[], &[]).expect(&bare);
            assert_eq!(key.show(&config.settings), value);
        }
    }
}

#[test]
fn every_key_can_be_set_in_the_environment_and_wins_over_the_file() {
    for key in KEYS {
        let (default, other) = (key.default_text(), another(key));
        let config = assemble("", &[(&key.variable(), other)], &[]).expect(key.name);
        assert_eq!(key.show(&config.settings), other);
        let line = format!("{} = \"{other}\"", key.name);
        let config = assemble(&line, &[(&key.variable(), &default)], &[]).expect(key.name);
        assert_eq!(key.show(&config.settings), default, "{}", key.name);
    }
}

#[test]
fn every_option_wins_over_the_environment() {
    for key in KEYS {
        let (default, other) = (key.default_text(), another(key));
        let config = assemble("", &[], &[(key, other)]).expect(key.name);
        assert_eq!(key.show(&config.settings), other);
        let variable = key.variable();
        let config = assemble("", &[(&variable, other)], &[(key, &default)]).expect(key.name);
        assert_eq!(key.show(&config.settings), default, "{}", key.name);
    }
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let config = assemble("history_count = 3", &[("PUSHLINE_HISTORY_COUNT", "")], &[]);
    assert_eq!(config.expect("good").settings.channel_default.history_count, 3);
}

/// The first match wins, and what an entry leaves out is the general value, wherever that comes
/// from.
#[test]
fn channel_rules_stand_on_the_general_ones() {
    let text = "
        history_count = 7
        [[channel]]
        pattern = 'chat:vip'
        slow = 'disconnect'
        [[channel]]
        pattern = 'chat:*'
        history_count = 0
        history_age = '1h'
        publish_rate = 10";
    let config = assemble(text, &[("PUSHLINE_PUBLISH_RATE", "99")], &[]).expect("good");
    let Settings { channels, .. } = &config.settings;
    assert_eq!(channels.len(), 2);
    let vip = bounds(&config.settings, "chat:vip");
    assert_eq!((vip.history_count, vip.slow), (7, SlowPolicy::Disconnect));
    assert_eq!(vip.publish_rate, Some(99));
    let chat = bounds(&config.settings, "chat:room");
    assert_eq!((chat.history_count, chat.slow), (0, SlowPolicy::Skip));
    assert_eq!(chat.history_age, Duration::from_secs(3600));
    assert_eq!(chat.publish_rate, Some(10));
    assert_eq!(bounds(&config.settings, "news").history_count, 7);
}

#[test]
fn channel_rules_of_the_environment_replace_those_of_the_file() {
    let text = "[[channel]]\npattern = 'a'\nhistory_count = 1";
    let rules = "[{ pattern = \"b:*\", history_count = 2 }]";
    let config = assemble(text, &[("PUSHLINE_CHANNEL", rules)], &[]).expect("good");
    assert_eq!(bounds(&config.settings, "a").history_count, 1000);
    assert_eq!(bounds(&config.settings, "b:c").history_count, 2);
}

#[test]
fn access_settings_come_from_file_and_environment_key_by_key() {
    let text = "[auth]\ncookie = 'one'\norigins = ['https://a.example']";
    let variables = [
        ("PUSHLINE_AUTH_COOKIE", "two"),
        ("PUSHLINE_AUTH_AUDIENCE", "push, other"),
        ("PUSHLINE_AUTH_LEEWAY_S", "9"),
        ("PUSHLINE_AUTH_EXPIRY", "optional"),
        ("PUSHLINE_AUTH_HMAC_SECRETS", "[{ env = \"S\", kid = \"k\" }]"),
    ];
    let auth = assemble(text, &variables, &[]).expect("good").auth;
    assert_eq!(auth.cookie.as_deref(), Some("two"));
    assert_eq!(auth.origins, ["https://a.example"]);
    assert_eq!(auth.audience, ["push", "other"]);
    assert_eq!(auth.leeway_s.0, 9);
    assert_eq!(auth.expiry, pushline::auth::Expiry::Optional);
    assert_eq!(auth.hmac_secrets[0].env.as_deref(), Some("S"));
}

/// In a `[[channel]]`, `history_bytes` is a share of the whole.
#[test]
fn shares_of_history_are_no_more_than_the_whole() {
    let of = |share: &str| {
        let channel = format!("[[channel]]\npattern = 'user:*'\nhistory_bytes = '{share}'");
        assemble(&format!("history_bytes = '1MiB'\n{channel}"), &[], &[])
    };
    let settings = of("1MiB").expect("all of it").settings;
    assert_eq!((settings.history_bytes, settings.channels[0].1.history_share), (1 << 20, 1 << 20));
    assert_eq!(settings.channel_default.history_share, 0);
    let error = of("1025KiB").expect_err("more than all").to_string();
    assert!(error.contains("[[channel]] together"), "{error}");
}

/// `--max-event-bytes 16MiB` must be enough alone: what an event needs on its way follows from it.
#[test]
fn the_largest_event_fits_everywhere() {
    let config = assemble("max_event_bytes = '16MiB'", &[], &[]).expect("good");
    assert!(config.settings.replica_bytes > 16 << 20);
    assert!(assemble("max_event_bytes = '16MiB'\nhistory_bytes = '16MiB'", &[], &[]).is_err());
}

#[test]
fn the_shorthands_of_other_servers_are_taken_for_addresses() {
    for (text, address) in [
        ("localhost:8080", "127.0.0.1:8080"),
        (":8080", "0.0.0.0:8080"),
        ("[::1]:8080", "[::1]:8080"),
        ("localhost:0", "127.0.0.1:0"),
    ] {
        let config = assemble(&format!("listen = '{text}'"), &[], &[]).expect(text);
        assert_eq!(config.settings.listen.to_string(), address);
    }
    for bad in ["localhost", ":", "localhost:", ":65536", ":+80", "example.com:80"] {
        assert!(assemble(&format!("listen = '{bad}'"), &[], &[]).is_err(), "{bad}");
    }
}

/// When a program reports a mistake, it says which file it read.
#[test]
fn a_file_named_wins_over_the_one_in_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("pushline.toml"), "workers = 0").expect("written");
    let named = file("\nheartbeat = 0");
    let told = |arguments: &[&str], variable: Option<&std::path::Path>| {
        let mut command = pushline();
        command.args(arguments).current_dir(folder.path());
        command.envs(variable.map(|path| ("PUSHLINE_CONFIG", path)));
        let out = command.output().expect("it ends");
        assert_eq!(out.status.code(), Some(1));
        text(&out.stderr)
    };
    let path = named.path().to_str().expect("text");
    assert!(told(&[], None).starts_with("pushline: pushline.toml:1: workers = 0: wanted"));
    let of_named = format!("pushline: {path}:2: heartbeat = 0: wanted");
    assert!(told(&[], Some(named.path())).starts_with(&of_named));
    assert!(told(&["--config", path], None).starts_with(&of_named));
}
