"""Functions that models are offered."""

WEATHER_ARGUMENTS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
CLOCK_ARGUMENTS = {"type": "object", "properties": {"zone": {"enum": ["utc", "local"]}}, "required": ["zone"]}
ARGUMENTS = {"weather": WEATHER_ARGUMENTS, "clock": CLOCK_ARGUMENTS, "ping": {"const": {}}}
"""What valid arguments of each function are; ``ping`` takes none."""
