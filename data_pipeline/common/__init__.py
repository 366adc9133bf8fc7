"""What every room needs once: errors, atomic files, the journal, quarantine, progress, boxes, HTML."""
