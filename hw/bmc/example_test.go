package bmc_test

import (
	"context"
	"fmt"
	"log"

	"gprovision/hw/bmc/simulator"
)

// What the controller of this machine is, with a controller that is not there.
func ExampleController() {
	c := simulator.New().Open() // bmc.Open(bmc.Path) on a machine that has one
	d, err := c.Device(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	lans, err := c.LANs(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("firmware", d.Firmware)
	for _, l := range lans {
		fmt.Println(l.MAC, l.Address, l.Source)
	}
	// Output:
	// firmware 1.71
	// 02:00:5e:00:53:01 192.0.2.9 dhcp
}

// An account gets a password, which the controller then has to prove.
func ExampleController_SetUser() {
	c, ctx := simulator.New().Open(), context.Background()
	const channel, password = 1, "correct horse"
	u, err := c.SetUser(ctx, channel, "operator", password)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(u.ID, u.Privilege, c.TestPassword(ctx, u.ID, password))
	fmt.Println(c.TestPassword(ctx, u.ID, "battery staple"))
	// Output:
	// 3 administrator <nil>
	// the management controller does not have the password that it was given
}
