package sensor_test

import (
	"fmt"
	"log"
	"os"

	"gprovision/hw/sensor"
)

// What is hot in this machine.
func ExampleTemperatures() {
	all, err := sensor.Temperatures(os.DirFS("/sys"))
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range all {
		if t.Celsius > 80 {
			fmt.Printf("%s has %d °C\n", t, t.Celsius)
		}
	}
}
