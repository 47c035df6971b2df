-- The latest time that a bundle signed: what a lowered floor cannot go below. It needs the floor's
-- row, which the first import makes.
ALTER TABLE clock_floor ADD COLUMN signed INTEGER NOT NULL DEFAULT 0;
