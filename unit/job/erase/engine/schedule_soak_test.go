//go:build soak

package engine

import "testing"

// quarter is a fourth of a million: one test with all of them would be too long for continuous integration.
const quarter = 250_000

// TestSoakEraseSchedules and the three below run a million schedules, or GPROV_ERASE_SCHEDULES each, from the seed GPROV_ERASE_SEED on.
func TestSoakEraseSchedules(t *testing.T) { runSchedules(t, quarter, 1) }

func TestSoakEraseSchedulesSecond(t *testing.T) { runSchedules(t, quarter, 1+quarter) }

func TestSoakEraseSchedulesThird(t *testing.T) { runSchedules(t, quarter, 1+2*quarter) }

func TestSoakEraseSchedulesFourth(t *testing.T) { runSchedules(t, quarter, 1+3*quarter) }
