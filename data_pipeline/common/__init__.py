"""What every room needs once: errors, atomic files, journal, quarantine, progress, boxes, HTML."""
