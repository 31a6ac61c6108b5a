//! Fetches secrets and keys from where the settings say they are.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::settings::{AuthConfigError, AuthFault, PublishKeySettings, SecretText};
use super::{AuthSettings, KeySource};

/// Longest key file: a set of 16 RSA 4096 keys takes 16 KiB. Keeps a wrong path (a log, a device)
/// from filling memory.
pub const KEY_FILE_BYTES_MAX: u64 = 256 * 1024;

/// Looks up an environment variable.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The bytes of a secret or key, with the name of its place for messages.
pub(super) struct Material {
    pub place: String,
    pub bytes: Vec<u8>,
}

impl Material {
    pub fn error(&self, fault: AuthFault) -> AuthConfigError {
        AuthConfigError::new(&self.place, fault)
    }

    /// The bytes without the line break that editors and `echo` put at the end of a file.
    pub fn without_line_break(&self) -> &[u8] {
        let bytes = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        bytes.strip_suffix(b"\r").unwrap_or(bytes)
    }
}

/// Where one secret is: the three ways a setting can name it.
pub(super) struct Place<'a> {
    file: Option<&'a Path>,
    env: Option<&'a str>,
    value: Option<&'a SecretText>,
}

impl<'a> From<&'a KeySource> for Place<'a> {
    fn from(source: &'a KeySource) -> Self {
        let KeySource { file, env, value, kid: _ } = source;
        Self { file: file.as_deref(), env: env.as_deref(), value: value.as_ref() }
    }
}

impl<'a> From<&'a PublishKeySettings> for Place<'a> {
    fn from(source: &'a PublishKeySettings) -> Self {
        let PublishKeySettings { file, env, value, name: _, publish: _ } = source;
        Self { file: file.as_deref(), env: env.as_deref(), value: value.as_ref() }
    }
}

impl Place<'_> {
    /// Fetches the secret. `setting` names the entry, as in `auth.hmac_secrets[0]`.
    pub fn fetch(&self, setting: &str, env: Env<'_>) -> Result<Material, AuthConfigError> {
        match (self.file, self.env, self.value) {
            (Some(path), None, None) => read_file(setting, path),
            (None, Some(name), None) => {
                let place = format!("{setting} (environment variable {name})");
                match env(name) {
                    Some(text) => Ok(Material { place, bytes: text.into_bytes() }),
                    None => Err(AuthConfigError::new(place, AuthFault::EnvMissing)),
                }
            }
            (None, None, Some(text)) => {
                Ok(Material { place: setting.to_owned(), bytes: text.expose().into() })
            }
            _ => Err(AuthConfigError::new(setting, AuthFault::NotOneSource)),
        }
    }
}

/// Reads a key file whole, up to [`KEY_FILE_BYTES_MAX`].
pub(super) fn read_file(setting: &str, path: &Path) -> Result<Material, AuthConfigError> {
    let place = format!("{setting} (file {})", path.display());
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(AuthConfigError::new(place, AuthFault::Unreadable(error.kind()))),
        Ok(_) if bytes.len() as u64 > KEY_FILE_BYTES_MAX => {
            Err(AuthConfigError::new(place, AuthFault::FileTooLong))
        }
        Ok(_) => Ok(Material { place, bytes }),
    }
}

/// Refuses settings that only matter to tokens if no key can check one: an operator who set an
/// audience and forgot the key must not end up with an open server.
pub(super) fn refuse_token_settings(settings: &AuthSettings) -> Result<(), AuthConfigError> {
    let set = [
        ("auth.algorithms", !settings.algorithms.is_empty()),
        ("auth.audience", !settings.audience.is_empty()),
        ("auth.issuer", !settings.issuer.is_empty()),
        ("auth.cookie", settings.cookie.is_some()),
        ("auth.query_token", settings.query_token == super::QueryToken::Enabled),
    ];
    match set.into_iter().find(|(_, is_set)| *is_set) {
        Some((setting, _)) => Err(AuthConfigError::new(setting, AuthFault::NoTokenKey)),
        None => Ok(()),
    }
}
