package lab

import (
	"fmt"

	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
)

// newDisplay returns a simulated display, or nil for none.
func newDisplay(model string) (*simulator.LCD, error) {
	switch model {
	case "":
		return nil, nil
	case lcd.Model631.String():
		return simulator.New(lcd.Model631), nil
	case lcd.Model635.String():
		return simulator.New(lcd.Model635), nil
	}
	return nil, fmt.Errorf("there is no LCD %q, only 631 and 635", model)
}

// Display is the simulated display that the unit has, nil if it has none. It stays the same through all starts; each start switches it
// off and on.
func (u *Unit) Display() *simulator.LCD { return u.display }
