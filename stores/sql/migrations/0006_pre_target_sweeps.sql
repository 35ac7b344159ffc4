-- Whether all that stood in the target when it was begun anew, and belongs to nobody, is out of it. Not before is it whole.
ALTER TABLE projection ADD COLUMN is_swept bool NOT NULL DEFAULT true;
