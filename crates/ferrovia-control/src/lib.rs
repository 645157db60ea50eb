//! ferrovia-control
