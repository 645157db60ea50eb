//! ferrovia-edge
