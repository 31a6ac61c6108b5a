//! Reads the file. Values are kept as text with their place; [`super::load()`] combines them with
//! those from elsewhere.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::access::{self, AuthKey};
use super::error::{ConfigErrors, Fault, Place, quoted};
use super::keys::{KEYS, Key};
use super::suggest::nearest;

/// The name of the table that may come several times.
pub(super) const CHANNEL: &str = "channel";
/// The name of the table of keys whose names begin with it.
const CLUSTER: &str = "cluster";
/// The name of the table of access settings.
pub(super) const AUTH: &str = "auth";
/// The name of the table whose keys are those that begin with it, as `cert` for `tls_cert`.
const TLS: &str = "tls";
/// The key of a `[[channel]]` that says which channels it applies to.
pub(super) const PATTERN: &str = "pattern";

/// A value as text, with its place.
#[derive(Debug)]
pub(super) struct Written {
    pub key: &'static Key,
    pub text: String,
    /// The value as written, for messages about mistakes.
    pub shown: String,
    pub place: Place,
}

impl Written {
    /// A value from a variable or an option, which is text.
    pub fn as_text(key: &'static Key, text: String, place: Place) -> Self {
        Self { key, shown: quoted(&text), text, place }
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub pattern: String,
    pub place: Place,
    pub values: Vec<Written>,
}

/// One key of `[auth]`.
#[derive(Debug)]
pub(super) struct AuthValue<'a> {
    pub key: &'static AuthKey,
    pub place: Place,
    pub value: Spanned<DeValue<'a>>,
}

#[derive(Debug, Default)]
pub(super) struct Document<'a> {
    pub values: Vec<Written>,
    pub channels: Vec<Entry>,
    pub auth: Vec<AuthValue<'a>>,
}

/// A text and its source, to name places in it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    /// A file: path and text.
    File(&'a str, &'a str),
    /// An environment variable.
    Variable(&'a str),
}

impl Origin<'_> {
    fn place(self, span: &Range<usize>) -> Place {
        match self {
            Self::File(path, text) => {
                let before = text.as_bytes().iter().take(span.start);
                let line = before.filter(|&&byte| byte == b'\n').count() + 1;
                Place::Line(path.to_owned(), line)
            }
            Self::Variable(name) => Place::Variable(name.to_owned()),
        }
    }
}

/// Reads a whole file. Mistakes are added to `errors`, and reading continues.
pub(super) fn read<'a>(path: &str, text: &'a str, errors: &mut ConfigErrors) -> Document<'a> {
    let origin = Origin::File(path, text);
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let place = origin.place(&error.span().unwrap_or_default());
            // The message without the lines it is about, which may hold a secret.
            errors.add(place, Fault::Syntax(error.message().to_owned()));
            return Document::default();
        }
    };
    let mut document = Document::default();
    for (name, value) in table {
        let place = origin.place(&name.span());
        match name.get_ref().as_ref() {
            CHANNEL => document.channels = channels(value, origin, errors),
            AUTH => document.auth = auth(value, origin, errors),
            table @ (CLUSTER | TLS) => {
                document.values.extend(table_of(table, &value, origin, errors));
            }
            name => match Key::named(name) {
                Some(key) => {
                    document.values.extend(written(key, value.get_ref(), place, errors));
                }
                None => {
                    let known = KEYS.iter().map(|key| key.name).chain([CHANNEL, AUTH, CLUSTER]);
                    errors.add(place, unknown(name, "", known));
                }
            },
        }
    }
    document
}

/// The `[[channel]]` entries, in order.
pub(super) fn channels(
    value: Spanned<DeValue<'_>>,
    origin: Origin<'_>,
    errors: &mut ConfigErrors,
) -> Vec<Entry> {
    let wanted = "an array of tables: [[channel]] with a pattern";
    let place = origin.place(&value.span());
    let DeValue::Array(array) = value.get_ref() else {
        let fault = Fault::WrongType(CHANNEL.to_owned(), wanted, found(value.get_ref()));
        errors.add(place, fault);
        return Vec::new();
    };
    let mut entries = Vec::new();
    for element in array.iter() {
        let place = origin.place(&element.span());
        match element.get_ref() {
            DeValue::Table(table) => entries.extend(entry(table, place, origin, errors)),
            other => {
                let fault = Fault::WrongType(CHANNEL.to_owned(), wanted, found(other));
                errors.add(place, fault);
            }
        }
    }
    entries
}

fn entry(
    table: &DeTable<'_>,
    place: Place,
    origin: Origin<'_>,
    errors: &mut ConfigErrors,
) -> Option<Entry> {
    let mut pattern = None;
    let mut values = Vec::new();
    for (name, value) in table {
        let place = origin.place(&name.span());
        let (name, value) = (name.get_ref().as_ref(), value.get_ref());
        match (name, Key::of_channels().find(|key| key.name == name)) {
            (PATTERN, _) => match value.as_str() {
                Some(text) => pattern = Some(text.to_owned()),
                None => {
                    let fault = Fault::WrongType(PATTERN.to_owned(), "a string", found(value));
                    errors.add(place, fault);
                    return None;
                }
            },
            (_, Some(key)) => values.extend(written(key, value, place, errors)),
            (_, None) => {
                let known = Key::of_channels().map(|key| key.name).chain([PATTERN]);
                errors.add(place, unknown(name, "channel.", known));
            }
        }
    }
    match pattern {
        Some(pattern) => Some(Entry { pattern, place, values }),
        None => {
            errors.add(place, Fault::NoPattern);
            None
        }
    }
}

fn table_of(
    table_name: &str,
    value: &Spanned<DeValue<'_>>,
    origin: Origin<'_>,
    errors: &mut ConfigErrors,
) -> Vec<Written> {
    let DeValue::Table(table) = value.get_ref() else {
        let fault = Fault::WrongType(table_name.to_owned(), "a table", found(value.get_ref()));
        errors.add(origin.place(&value.span()), fault);
        return Vec::new();
    };
    let mut values = Vec::new();
    for (name, value) in table {
        let place = origin.place(&name.span());
        match Key::named(&format!("{table_name}_{}", name.get_ref())) {
            Some(key) => values.extend(written(key, value.get_ref(), place, errors)),
            None => {
                let prefix = format!("{table_name}_");
                let known = KEYS.iter().filter_map(|key| key.name.strip_prefix(&prefix));
                errors.add(place, unknown(name.get_ref(), &format!("{table_name}."), known));
            }
        }
    }
    values
}

fn auth<'a>(
    value: Spanned<DeValue<'a>>,
    origin: Origin<'_>,
    errors: &mut ConfigErrors,
) -> Vec<AuthValue<'a>> {
    let place = origin.place(&value.span());
    let table = match value.into_inner() {
        DeValue::Table(table) => table,
        other => {
            errors.add(place, Fault::WrongType(AUTH.to_owned(), "a table", found(&other)));
            return Vec::new();
        }
    };
    let mut values = Vec::new();
    for (name, value) in table {
        let place = origin.place(&name.span());
        match AuthKey::named(name.get_ref()) {
            Some(key) => values.push(AuthValue { key, place, value }),
            None => {
                let known = access::AUTH_KEYS.iter().map(|key| key.name);
                errors.add(place, unknown(name.get_ref(), "auth.", known));
            }
        }
    }
    values
}

fn unknown<'a>(name: &str, path: &str, known: impl Iterator<Item = &'a str>) -> Fault {
    // Everything after a table's head belongs to that table, which is easily forgotten.
    let place = match name {
        PATTERN => Some("in a [[channel]]"),
        _ if AuthKey::named(name).is_some() => Some("in [auth]"),
        _ if Key::named(name).is_some() => {
            Some("at the top, before the first [auth] or [[channel]]")
        }
        _ => None,
    };
    if let Some(place) = place {
        return Fault::Misplaced(format!("{path}{name}"), place);
    }
    let nearest = nearest(name, known).map(str::to_owned);
    Fault::UnknownKey(format!("{path}{name}"), nearest)
}

fn written(
    key: &'static Key,
    value: &DeValue<'_>,
    place: Place,
    errors: &mut ConfigErrors,
) -> Option<Written> {
    match text_of(value) {
        Some(text) => {
            let shown = match value {
                DeValue::String(_) => quoted(&text),
                DeValue::Array(_) => format!("[{text}]"),
                _ => text.clone().into_owned(),
            };
            Some(Written { key, text: text.into_owned(), shown, place })
        }
        None => {
            let wanted = "a string, a whole number, true or false";
            errors.add(place, Fault::WrongType(key.name.to_owned(), wanted, found(value)));
            None
        }
    }
}

/// A plain value as it is written on the command line; a list with commas.
fn text_of<'a>(value: &'a DeValue<'_>) -> Option<Cow<'a, str>> {
    match value {
        DeValue::String(text) => Some(Cow::Borrowed(text)),
        DeValue::Boolean(yes) => Some(Cow::Owned(yes.to_string())),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            let plain = i128::from_str_radix(&digits, number.radix()).map(|n| n.to_string());
            Some(Cow::Owned(plain.unwrap_or(digits)))
        }
        DeValue::Array(array) => {
            let parts: Option<Vec<_>> = array
                .iter()
                .map(|part| match part.get_ref() {
                    DeValue::Array(_) => None,
                    part => text_of(part),
                })
                .collect();
            Some(Cow::Owned(parts?.join(",")))
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
