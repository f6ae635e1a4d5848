package nic_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"gprovision/hw/nic"
)

// All real ports ask for an address at the same time, and the first that gets one will do.
func ExampleStart() {
	ports, err := nic.List(os.DirFS("/sys"))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	network := nic.Start(ctx, slog.Default(), nic.Real(ports), "")
	defer network.Close() // addresses stay, only their renewal ends
	leases, err := network.Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(leases[0])
}

// Boot loaders write a port's address in ways of their own.
func ExampleNormalMAC() {
	fmt.Println(nic.NormalMAC("01-52-54-00-AA-BB-CC"))
	// Output: 52:54:00:aa:bb:cc
}
