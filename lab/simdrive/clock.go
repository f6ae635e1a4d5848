package simdrive

import "time"

// Clock is virtual time. It moves when it is told to, and by the time that commands take.
type Clock struct{ now time.Duration }

// Now returns the time since the clock was made.
func (c *Clock) Now() time.Duration { return c.now }

// Advance lets time pass.
func (c *Clock) Advance(d time.Duration) { c.now += max(0, d) }
