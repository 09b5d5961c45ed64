//! The configuration file: from text to a valid [`Config`](model::Config), or to all that is wrong with it.

pub mod model;
