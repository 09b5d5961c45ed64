//! What the tests share: packets and namespaces. Nothing here uses the product's own encoders or parsers.

pub mod frame;
mod interrupted;
pub mod netns;
