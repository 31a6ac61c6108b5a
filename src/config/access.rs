//! The keys of `[auth]`, and how they are read without quoting what they hold.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::{ConfigErrors, Fault, Place};
use super::file::AuthValue;
use super::keys::variable;
use super::suggest::nearest;
use super::template::literal;
use crate::auth::{AuthSettings, Env};

/// A key of `[auth]`. Its values are taken by [`AuthSettings`].
#[derive(Debug)]
pub(super) struct AuthKey {
    pub name: &'static str,
    pub kind: Kind,
    /// The default as TOML; `None`: the key is shown commented out, with its example.
    pub default: Option<&'static str>,
    /// An example as TOML.
    pub example: &'static str,
    pub help: &'static str,
}

/// How the environment variable of a key is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The text itself.
    Text,
    /// Texts with commas between them.
    List,
    /// TOML, as in the file.
    Toml,
}

impl AuthKey {
    pub fn named(name: &str) -> Option<&'static Self> {
        AUTH_KEYS.iter().find(|key| key.name == name)
    }

    pub fn variable(&self) -> String {
        variable(&format!("auth.{}", self.name))
    }

    /// A variable's text as TOML.
    fn as_toml(&self, text: &str) -> String {
        match self.kind {
            Kind::Text => literal(text),
            Kind::List => {
                let parts: Vec<String> = text.split(',').map(|part| literal(part.trim())).collect();
                format!("[{}]", parts.join(", "))
            }
            Kind::Toml => text.to_owned(),
        }
    }
}

/// All keys of `[auth]`, in the order of the file.
pub(super) static AUTH_KEYS: &[AuthKey] = &[
    AuthKey {
        name: "hmac_secrets",
        kind: Kind::Toml,
        default: Some("[]"),
        example: "[{ env = \"PUSHLINE_SECRET\" }]",
        help: "Shared secrets for HS256, HS384 and HS512: each from a file or env, with a kid or \
               not.",
    },
    AuthKey {
        name: "public_keys",
        kind: Kind::Toml,
        default: Some("[]"),
        example: "[{ file = \"/etc/pushline/issuer.pem\", kid = \"2025-1\" }]",
        help: "Public keys in PEM: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA.",
    },
    AuthKey {
        name: "jwks_file",
        kind: Kind::Text,
        default: None,
        example: "\"/etc/pushline/jwks.json\"",
        help: "A JSON Web Key Set.",
    },
    AuthKey {
        name: "algorithms",
        kind: Kind::List,
        default: Some("[]"),
        example: "[\"HS256\"]",
        help: "Narrows the algorithms accepted; empty: all that the keys have.",
    },
    AuthKey {
        name: "audience",
        kind: Kind::List,
        default: Some("[]"),
        example: "[\"pushline\"]",
        help: "A token must name one of these in aud; empty: it must have no aud.",
    },
    AuthKey {
        name: "issuer",
        kind: Kind::List,
        default: Some("[]"),
        example: "[\"https://login.example.com\"]",
        help: "A token must come from one of these, by iss; empty: any.",
    },
    AuthKey {
        name: "leeway_s",
        kind: Kind::Toml,
        default: Some("5"),
        example: "5",
        help: "Seconds by which the clocks of issuer and server may differ.",
    },
    AuthKey {
        name: "expiry",
        kind: Kind::Text,
        default: Some("\"required\""),
        example: "\"optional\"",
        help: "Whether a token must have exp: required or optional.",
    },
    AuthKey {
        name: "cookie",
        kind: Kind::Text,
        default: None,
        example: "\"session\"",
        help: "The name of a cookie that holds a token; without it cookies are ignored.",
    },
    AuthKey {
        name: "query_token",
        kind: Kind::Text,
        default: Some("\"disabled\""),
        example: "\"enabled\"",
        help: "Whether ?access_token= is taken: enabled or disabled. URLs end up in logs.",
    },
    AuthKey {
        name: "origins",
        kind: Kind::List,
        default: Some("[]"),
        example: "[\"https://app.example.com\"]",
        help: "Web origins whose pages may connect, exactly as browsers send them.",
    },
    AuthKey {
        name: "publish_keys",
        kind: Kind::Toml,
        default: Some("[]"),
        example: "[{ name = \"billing\", file = \"/etc/pushline/billing.key\", publish = \
               [\"invoice:*\"] }]",
        help: "Keys for backends that publish: each from a file or env, for all channels or these.",
    },
    AuthKey {
        name: "url",
        kind: Kind::Text,
        default: None,
        example: "\"http://localhost:3000/push-rights\"",
        help: "Your backend, asked with the cookies and the Authorization of a request that shows neither \
               a token nor a key; it answers with the claims of a token, or 401 or 403.",
    },
    AuthKey {
        name: "client_certificates",
        kind: Kind::Toml,
        default: None,
        example: "{ ca = \"/etc/pushline/clients.pem\", publish = [\"invoice:*\"] }",
        help: "Over TLS, a client certificate that one of ca has signed may publish: to all channels or \
               these.",
    },
    AuthKey {
        name: "anonymous",
        kind: Kind::Toml,
        default: None,
        example: "{ subscribe = [\"public:*\"] }",
        help: "What clients without credentials may do.",
    },
];

/// Puts the access settings together, key by key; the environment wins over the file.
pub(super) fn read(
    from_file: Vec<AuthValue<'_>>,
    env: Env<'_>,
    errors: &mut ConfigErrors,
) -> AuthSettings {
    let variables: Vec<_> = AUTH_KEYS
        .iter()
        .filter_map(|key| {
            let text = env(&key.variable()).filter(|text| !text.is_empty())?;
            Some((key, key.as_toml(&text)))
        })
        .collect();
    let mut table = DeTable::new();
    for AuthValue { key, place, value } in from_file {
        take(key, place, value, &mut table, errors);
    }
    for (key, text) in &variables {
        let place = Place::Variable(key.variable());
        match DeValue::parse(text) {
            Ok(value) => take(key, place, value, &mut table, errors),
            Err(_) => errors.add(place, Fault::AuthShape(key.name, not_toml(key))),
        }
    }
    // Each key was accepted alone, so all of them are accepted together.
    AuthSettings::deserialize(Spanned::new(0..0, table).into_deserializer()).unwrap_or_default()
}

fn take<'a>(
    key: &AuthKey,
    place: Place,
    value: Spanned<DeValue<'a>>,
    table: &mut DeTable<'a>,
    errors: &mut ConfigErrors,
) {
    let name = || Spanned::new(0..0, DeString::from(key.name.to_owned()));
    let mut alone = DeTable::new();
    alone.insert(name(), value.clone());
    let read = AuthSettings::deserialize(Spanned::new(0..0, alone).into_deserializer());
    match read {
        Ok(_) => drop(table.insert(name(), value)),
        Err(error) => {
            let told = format!("{}; for example {}", wanted(error.message()), key.example);
            errors.add(place, Fault::AuthShape(key_name(key), told));
        }
    }
}

fn key_name(key: &AuthKey) -> &'static str {
    AuthKey::named(key.name).map_or("", |key| key.name)
}

fn not_toml(key: &AuthKey) -> String {
    format!("not TOML; wanted: something like {}", key.example)
}

/// What was wanted. What was found instead may be a misplaced secret, so only the part of the
/// message that lists names is kept.
fn wanted(message: &str) -> String {
    let wanted = message.rsplit_once("expected ").map(|(_, wanted)| wanted.trim());
    match wanted {
        Some(wanted) if message.starts_with("unknown field") => {
            let meant = meant(message, wanted);
            let meant = meant.map_or_else(String::new, |name| format!("; did you mean {name}?"));
            format!("unknown key in it{meant}; wanted: {wanted}")
        }
        Some(wanted) => format!("wanted: {}", wanted.replace("struct KeySource", "a table")),
        None => "not of the right shape".to_owned(),
    }
}

/// The known name nearest to the one written, which is not quoted.
fn meant<'a>(message: &str, wanted: &'a str) -> Option<&'a str> {
    let (written, _) = message.strip_prefix("unknown field `")?.split_once('`')?;
    nearest(written, wanted.split('`').skip(1).step_by(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names serde knows, taken from its own refusal of an unknown one.
    #[test]
    fn the_keys_are_those_of_the_settings() {
        let refusal = toml::from_str::<AuthSettings>("nonsense = 1").expect_err("unknown");
        let names: Vec<&str> = refusal.message().split('`').skip(3).step_by(2).collect();
        let mut known: Vec<&str> = AUTH_KEYS.iter().map(|key| key.name).collect();
        let mut taken = names.clone();
        known.sort_unstable();
        taken.sort_unstable();
        assert_eq!(known, taken);
    }

    #[test]
    fn defaults_and_examples_are_taken_and_defaults_change_nothing() {
        let default = format!("{:?}", AuthSettings::default());
        for key in AUTH_KEYS {
            for text in [key.default, Some(key.example)].into_iter().flatten() {
                let line = format!("{} = {text}", key.name);
                let settings = toml::from_str::<AuthSettings>(&line).expect(&line);
                let same = format!("{settings:?}") == default;
                assert_eq!(same, Some(text) == key.default, "{line}");
            }
        }
    }

    #[test]
    fn a_typo_inside_a_value_is_told_what_was_meant() {
        let line = "publish_keys = [{ nmae = 'a', env = 'A', publish = ['a'] }]";
        let error = toml::from_str::<AuthSettings>(line).expect_err("wrong");
        assert!(wanted(error.message()).contains("did you mean name?"), "{}", error.message());
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_quoted() {
        let secret = "hush-hush, expected nothing";
        for line in [
            "hmac_secrets = [\"SECRET\"]",
            "hmac_secrets = \"SECRET\"",
            "hmac_secrets = [{ value = [\"SECRET\"] }]",
            "hmac_secrets = [{ valu = \"SECRET\" }]",
            "publish_keys = \"SECRET\"",
            "algorithms = [\"SECRET\"]",
            "expiry = \"SECRET\"",
            "leeway_s = \"SECRET\"",
        ] {
            let line = line.replace("SECRET", secret);
            let error = toml::from_str::<AuthSettings>(&line).expect_err("wrong");
            let told = wanted(error.message());
            assert!(!told.contains("hush") && !told.contains("nothing"), "{line}: {told}");
        }
    }
}
