//! Mistakes are reported with their place, what was probably meant, and what is wanted; never with
//! a secret.

use super::*;

/// What `assemble` says about a file with one mistake, without the file's name.
fn told(text: &str) -> String {
    let errors = assemble(text, &[], &[]).expect_err(text);
    let told = errors.to_string();
    assert_eq!(errors.iter().count(), 1, "{told}");
    told.rsplit_once("/").map_or(told.clone(), |(_, rest)| rest.to_owned())
}

#[test]
fn unknown_keys_are_told_with_line_and_nearest_name() {
    for (text, line, ends) in [
        ("\n\nhistroy_count = 3", 3, "\"histroy_count\"; did you mean history_count?"),
        ("max-connections = 3", 1, "\"max-connections\"; did you mean max_connections?"),
        ("[[chanel]]\npattern = 'a'", 1, "\"chanel\"; did you mean channel?"),
        ("[[channel]]\npattern = 'a'\nslo = 1", 3, "\"channel.slo\"; did you mean slow?"),
        ("[[channel]]\npattern = 'a'\ncolour = 1", 3, "lists all keys"),
        ("[auth]\n\norigin = []", 3, "\"auth.origin\"; did you mean origins?"),
        ("colour = 'red'", 1, "\"colour\"; `pushline config default` lists all keys"),
    ] {
        let told = told(text);
        assert!(told.contains(&format!(":{line}: unknown key")), "{told}");
        assert!(told.ends_with(ends), "{told}");
    }
}

#[test]
fn a_key_in_the_wrong_table_is_told_its_place() {
    for (text, line, ends) in [
        (
            "[[channel]]\npattern = 'a'\nworkers = 1",
            3,
            "at the top, before the first [auth] or [[channel]]",
        ),
        ("[auth]\nheartbeat = '25s'", 2, "at the top, before the first [auth] or [[channel]]"),
        ("origins = []", 1, "in [auth]"),
        ("pattern = 'a'", 1, "in a [[channel]]"),
    ] {
        let told = told(text);
        assert!(told.contains(&format!(":{line}: ")), "{told}");
        assert!(told.ends_with(&format!("does not belong here, but {ends}")), "{told}");
    }
}

#[test]
fn bad_values_are_told_with_what_is_wanted() {
    for (text, ends) in [
        ("workers = 0", "workers = 0: wanted: a number from 1 to 1024, or auto"),
        ("workers = 1025", "wanted: a number from 1 to 1024, or auto"),
        ("workers = -1", "workers = -1: wanted: a number from 1 to 1024, or auto"),
        ("max_event_bytes = '17MiB'", "wanted: a size from 1B to 16MiB, with B, KiB, MiB or GiB"),
        ("max_fragments = 100_001", "wanted: a number from 1 to 100000"),
        ("heartbeat = '999ms'", "wanted: a time from 1s to 1h, with its unit, as 250ms, 25s or 5m"),
        (
            "heartbeat = 25",
            "heartbeat = 25: wanted: a time from 1s to 1h, with its unit, as 250ms, 25s or 5m",
        ),
        (
            "heartbeat = '25'",
            "heartbeat = \"25\": wanted: a time from 1s to 1h, with its unit, as 250ms, 25s or 5m",
        ),
        (
            "history_count = 1.5",
            "history_count is a number with a point; wanted: a string, \
          a whole number, true or false",
        ),
        (
            "listen = 8080",
            "wanted: an address and port, as 127.0.0.1:8080, localhost:8080, [::]:8080 or :8080",
        ),
        ("slow = 'wait'", "slow = \"wait\": wanted: one of skip, disconnect"),
        ("open = 'yes'", "wanted: one of true, false"),
        ("cpus = '4-2'", "wanted: cores below 1024 as 0,2,4-7, or auto, or none"),
        ("[listen]", "listen is a table; wanted: a string, a whole number, true or false"),
        (
            "[[channel]]",
            "[[channel]] without a pattern: an exact channel, *, or something ending in :*",
        ),
        ("[channel]", "wanted: an array of tables: [[channel]] with a pattern"),
        (
            "[[channel]]\npattern = 'a*'",
            "pattern \"a*\": a * must be the whole pattern or its \
             end, after a :",
        ),
        (
            "[[channel]]\npattern = 'a'\nhistory_age = 1",
            "channel.history_age = 1: wanted: a \
          time from 0s to 365d, with its unit, as 250ms, 25s or 5m",
        ),
        (
            "[[channel]]\npattern = 'a'\n[[channel]]\npattern = 'a'",
            "pattern \"a\" came before, and \
          the first match wins; remove one",
        ),
        (
            "admin = '127.0.0.1:8080'",
            "two of listen, listen_tls and admin are 127.0.0.1:8080; give each its own port",
        ),
        ("auth = 3", "auth is a whole number; wanted: a table"),
        (
            "[auth]\nexpiry = 'never'",
            "auth.expiry: wanted: `required` or `optional`; for example \"optional\"",
        ),
        (
            "[auth]\nhmac_secrets = ['short']",
            "auth.hmac_secrets: wanted: a table; for example [{ env = \"PUSHLINE_SECRET\" }]",
        ),
        ("history_bytes = '256MB'", "with B, KiB, MiB or GiB: 256MiB (by 1024), not 256MB"),
        ("listen = 'a'\nlisten = 'b'", "not TOML: duplicate key"),
    ] {
        let told = told(text);
        assert!(told.ends_with(ends), "{text}\n told: {told}\n not: {ends}");
    }
}

#[test]
fn all_mistakes_are_told_in_the_order_of_the_file() {
    let out = check("workers = 0\n[auth]\norigin = 1\n[[channel]]\n");
    assert_eq!(out.status.code(), Some(1));
    let told = text(&out.stderr);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert!(lines[0].starts_with("pushline: -:1: workers"), "{told}");
    assert!(lines[1].starts_with("-:3: unknown key"), "{told}");
    assert!(lines[2].starts_with("-:4: [[channel]]"), "{told}");
}

#[test]
fn too_many_channel_rules_are_told_of() {
    let rules: Vec<String> = (0..65).map(|n| format!("[[channel]]\npattern = 'c{n}'")).collect();
    assert!(assemble(&rules[..64].join("\n"), &[], &[]).is_ok());
    assert!(
        told(&rules.join("\n"))
            .ends_with("more than 64 [[channel]] entries; use prefixes such as user:*")
    );
}

#[test]
fn mistakes_elsewhere_than_in_the_file_name_their_place() {
    let of_variable = assemble("", &[("PUSHLINE_WORKERS", "many")], &[]).expect_err("bad");
    assert!(of_variable.to_string().starts_with("PUSHLINE_WORKERS: workers = \"many\""));
    let of_auth = assemble("", &[("PUSHLINE_AUTH_LEEWAY_S", "soon")], &[]).expect_err("bad");
    assert!(of_auth.to_string().starts_with("PUSHLINE_AUTH_LEEWAY_S: auth.leeway_s: not TOML"));
    let missing = pushline().args(["--config", "/does/not/exist"]).output().expect("it ends");
    assert_eq!(missing.status.code(), Some(1));
    let told = text(&missing.stderr);
    assert!(told.starts_with("pushline: /does/not/exist: cannot be read: no such file"), "{told}");
}

#[test]
fn misspelt_variables_are_noticed_and_foreign_ones_left_alone() {
    let auth = "[auth]\npublish_keys = [{ env = 'PUSHLINE_PUBLISH_KEY' }]";
    let auth = pushline::config::check_text("it", auth).expect("a configuration").auth;
    let names = [
        "PUSHLINE_HISTORY_CONT",
        "PUSHLINE_PORT_8080_TCP_ADDR",
        "PUSHLINE_LISTEN",
        "PUSHLINE_PUBLISH_KEY",
        "HOME",
    ];
    let names = names.iter().map(|name| (*name).to_owned());
    let found = pushline::config::misspelt_variables(names, &auth);
    let wanted = ("PUSHLINE_HISTORY_CONT".to_owned(), "PUSHLINE_HISTORY_COUNT".to_owned());
    assert_eq!(found, [wanted]);
}

/// A secret in every place where it might end up, well-formed or not.
#[test]
fn no_secret_is_told() {
    const SECRET: &str = "hush-hush-0123456789abcdef0123456789abcdef";
    for text in [
        "[auth]\nhmac_secrets = ['SECRET']",
        "[auth]\nhmac_secrets = 'SECRET'",
        "[auth]\nhmac_secrets = [{ value = 'SECRET', valu = 1 }]",
        "[auth]\nhmac_secrets = [{ value = 'SECRET', file = 'x' }]",
        "[auth]\nhmac_secrets = [{ value = 'SECRET' }",
        "[auth]\nhmac_secrets = [{ value = \"SECRET }]",
        "[auth]\nhmac_secrets = [{ value = SECRET }]",
        "[auth]\nhmac_secrets = [{ value = \"SECRET\\q\" }]",
        "[auth]\npublish_keys = [{ value = ['SECRET'] }]",
        "[auth]\npublish_keys = [{ value = 'SECRET' }, { value = 'SECRET' }]",
        "[auth]\npublish_keys = [{ env = 'NOT_SET', value = 'SECRET' }]",
        "[auth]\nleeway_s = 'SECRET'",
        "auth = 'SECRET'",
        "[[auth]]\nhmac_secrets = 'SECRET'",
    ] {
        let out = check(&text.replace("SECRET", SECRET));
        assert_eq!(out.status.code(), Some(1), "{text}");
        let told = text_of(&out);
        assert!(!told.contains("hush") && !told.contains("abcdef"), "{text}: {told}");
    }
    let variable = ("PUSHLINE_AUTH_HMAC_SECRETS", SECRET);
    let told = assemble("", &[variable], &[]).expect_err("not TOML").to_string();
    assert!(!told.contains("hush"), "{told}");
    let good = assemble(&format!("[auth]\nhmac_secrets = [{{ value = '{SECRET}' }}]"), &[], &[]);
    assert!(!format!("{good:?}").contains("hush"));
}

fn text_of(out: &Output) -> String {
    text(&out.stdout) + &text(&out.stderr)
}
