#![allow(unsafe_code)]
//! Placeholder.
