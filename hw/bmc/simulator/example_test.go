package simulator_test

import (
	"context"
	"fmt"

	"gprovision/hw/bmc/simulator"
)

// A controller that keeps eight bytes of a password is found out, although it says that all went well.
func ExampleNew() {
	s := simulator.New()
	s.Faults.Keep = 8
	c, ctx := s.Open(), context.Background()
	u, err := c.SetUser(ctx, 1, "operator", "longer than that")
	fmt.Println(u.Name, err)
	fmt.Println(c.TestPassword(ctx, u.ID, "longer than that"))
	// Output:
	// operator <nil>
	// the management controller does not tell a right password from a wrong one
}
