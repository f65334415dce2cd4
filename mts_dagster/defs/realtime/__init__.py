"""Live data of the sidecar: landed hours, what is computed from them, and the sensor that asks for them."""
