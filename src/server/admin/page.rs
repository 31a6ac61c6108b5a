//! The query of a paged list: where the page begins, and how long it may be.

use std::borrow::Cow;

use super::reply::Reply;
use crate::proto::http::query;
use crate::proto::http::response::Status;

/// Entries of a page if no number is given.
pub(super) const PAGE_DEFAULT: usize = 100;

/// Most entries of a page: a few hundred kilobytes.
pub(super) const PAGE_MAX: usize = 1000;

/// What the query of a page says.
#[derive(Debug)]
pub(super) struct PageQuery {
    /// Where the page begins, as the client sent it.
    pub place: Option<String>,
    /// Most entries wanted.
    pub limit: usize,
    /// What entries must match, by the names of the filters.
    filters: Vec<(&'static str, String)>,
}

impl PageQuery {
    /// Reads a query. `place_name` is the key of the place, `filter_names` are those of the filters
    /// that the list has. An unknown key is refused: it is probably misspelt.
    pub fn parse(
        text: &str,
        place_name: &str,
        filter_names: &[&'static str],
    ) -> Result<Self, Reply> {
        let mut parsed = Self { place: None, limit: PAGE_DEFAULT, filters: Vec::new() };
        for pair in query::pairs(text) {
            let (key, value) = pair.map_err(|_| bad_query("a % without two digits"))?;
            let value = std::str::from_utf8(&value).map_err(|_| bad_query("not UTF-8"))?;
            if key == b"limit".as_slice() {
                let limit = value.parse().ok().filter(|&limit: &usize| limit > 0);
                let limit =
                    limit.ok_or_else(|| bad_query("limit must be a number of at least 1"))?;
                parsed.limit = limit.min(PAGE_MAX);
            } else if key == place_name.as_bytes() {
                parsed.place = Some(value.to_owned());
            } else if let Some(name) = filter_names.iter().find(|name| key == name.as_bytes()) {
                parsed.filters.push((name, value.to_owned()));
            } else {
                let names = [&["limit", place_name], filter_names].concat().join(" and ");
                return Err(bad_query(format!("there are {names}")));
            }
        }
        Ok(parsed)
    }

    /// What entries must match by this filter, if it was given.
    pub fn filter(&self, name: &str) -> Option<&str> {
        let found = self.filters.iter().rfind(|(of, _)| *of == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// 400, with what would be right.
pub(super) fn bad_query(message: impl Into<Cow<'static, str>>) -> Reply {
    Reply::error(Status::BadRequest, "query", message)
}
