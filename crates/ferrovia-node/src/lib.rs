//! ferrovia-node
