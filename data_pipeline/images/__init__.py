"""Picture bytes in, square uint8 pixels out: decoding, padding or cropping, resizing."""
