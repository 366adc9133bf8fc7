"""Visual Genome and COCO files become Scenes."""
