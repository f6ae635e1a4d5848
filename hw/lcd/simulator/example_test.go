package simulator_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
)

// What is written to the display is on its screen.
func ExampleLCD() {
	ctx := context.Background()
	sim := simulator.New(lcd.Model631)
	ours, theirs := net.Pipe()
	go func() { _ = sim.Serve(theirs) }()
	conn, err := lcd.Connect(ctx, ours, lcd.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if err := conn.Write(ctx, 0, 1, lcd.Encode("Hello")); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%q\n", sim.Screen().Lines()[1])
	// Output: "Hello"
}
