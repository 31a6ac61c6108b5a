//! The commands around the configuration: their output is fit for its purpose.

use std::time::Duration;

use super::*;

#[test]
fn the_default_file_is_good_complete_and_changes_nothing() {
    let printed = pushline().args(["config", "default"]).output().expect("it ends");
    assert!(printed.status.success());
    let file = text(&printed.stdout);
    let out = check(&file);
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(0), "-: good\n".to_owned()));
    let config = assemble(&file, &[], &[]).expect("good");
    for key in KEYS {
        assert!(file.contains(&format!("\n{} = ", key.name)), "{} is missing", key.name);
        assert!(file.contains(&key.variable()) && file.contains(&format!("--{}", key.flag())));
        assert_eq!(key.show(&config.settings), key.default_text());
    }
    assert_eq!(
        format!("{:?}", config.auth),
        format!("{:?}", pushline::auth::AuthSettings::default())
    );
    assert!(file.lines().all(|line| line.len() <= 100), "a line is too long");
}

/// Each commented example can be used by removing the `#`.
#[test]
fn the_examples_in_the_default_file_are_good() {
    let file = pushline::config::template();
    let mut examples: Vec<&str> = Vec::new();
    let mut is_auth = false;
    for line in file.lines() {
        is_auth |= line == "[auth]";
        match line.strip_prefix('#') {
            Some(example) if !example.starts_with(' ') && !example.is_empty() => {
                if is_auth && !examples.contains(&"[auth]") {
                    examples.push("[auth]");
                }
                examples.push(example);
            }
            _ => {}
        }
    }
    let config = assemble(&examples.join("\n"), &[], &[]).expect("good examples");
    assert_eq!(config.settings.channels.len(), 1);
    assert!(config.auth.jwks_file.is_some() && config.auth.anonymous.is_some());
}

#[test]
fn completions_and_man_page_know_every_option() {
    let print = |args: &[&str]| {
        let out = pushline().args(args).output().expect("it ends");
        assert!(out.status.success());
        text(&out.stdout)
    };
    let (bash, man) = (print(&["completions", "bash"]), print(&["man"]));
    for key in KEYS {
        assert!(bash.contains(&format!("--{}", key.flag())), "{}", key.name);
        assert!(man.contains(&key.flag().replace('-', "\\-")), "{}", key.name);
    }
    let of_sub = print(&["man", "sub"]);
    assert!(of_sub.contains(".TH pushline-sub 1") && of_sub.contains("transport"), "{of_sub}");
    let nothing = pushline().args(["man", "nothing"]).output().expect("it ends");
    assert_eq!(nothing.status.code(), Some(1));
}

#[test]
fn a_token_is_made_of_the_secret_in_the_environment() {
    let out = pushline()
        .args(["token", "--subscribe", "news"])
        .env("PUSHLINE_SECRET", "s".repeat(64))
        .output()
        .expect("it ends");
    assert!(out.status.success());
    assert_eq!(text(&out.stdout).trim().split('.').count(), 3);
    assert_eq!(text(&out.stderr), "");
    let without = pushline().args(["token", "--subscribe", "news"]).output().expect("it ends");
    assert_eq!(without.status.code(), Some(1));
}

/// Prints what is written beside the token, or instead of it.
fn told_by_token(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = pushline();
    command.arg("token").args(arguments).env("PUSHLINE_SECRET", "s".repeat(64));
    let out = command.output().expect("it ends");
    (out.status.code(), text(&out.stderr))
}

#[test]
fn a_token_without_rights_is_warned_of_and_mistakes_are_told_in_plain_words() {
    let (status, told) = told_by_token(&[]);
    assert_eq!(status, Some(0));
    assert!(told.contains("this token allows nothing") && told.contains("--subscribe"), "{told}");
    let (status, told) = told_by_token(&["--subscribe", "a", "--subscribe", "a*"]);
    assert_eq!(status, Some(1));
    assert!(told.contains("--subscribe \"a*\": not a channel, `*`"), "{told}");
    let (status, told) = told_by_token(&["--expires-in", "never"]);
    assert_eq!(status, Some(2));
    assert!(told.contains("wanted: a time with its unit, as 30s, 15m or 7d"), "{told}");
}

#[test]
fn usage_errors_exit_with_2_and_a_reader_that_leaves_is_no_failure() {
    let out = pushline().arg("--no-such-option").output().expect("it ends");
    assert_eq!(out.status.code(), Some(2));
    let mut child = pushline()
        .args(["config", "default"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let out = child.wait_with_output().expect("it ends");
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
}

/// The names in the files under `tuning/` are names the program knows.
#[test]
fn tuning_names_only_variables_that_there_are() {
    let unit = include_str!("../../../tuning/pushline.service");
    let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    for word in unit.split(|c: char| !(c.is_ascii_uppercase() || c == '_')) {
        if word.starts_with("PUSHLINE_") {
            assert!(word == "PUSHLINE_CONFIG" || known.iter().any(|name| name == word), "{word}");
        }
    }
    assert!(unit.contains("pushline serve") && unit.contains("kill -HUP"));
    let drain = pushline::config::Settings::default().drain_time;
    assert!(unit.contains("TimeoutStopSec=30") && drain < Duration::from_secs(30));
}
