package watchdog_test

import (
	"log"
	"os"
	"time"

	"gprovision/hw/watchdog"
)

// A machine that is reset if the work takes longer than a minute.
func ExampleOpen() {
	path, err := watchdog.Find(os.DirFS("/sys"))
	if err != nil {
		log.Fatal(err)
	}
	timer, err := watchdog.Open(path) // it runs from here on
	if err != nil {
		log.Fatal(err)
	}
	if _, err := timer.SetTimeout(time.Minute); err != nil {
		log.Print(err)
	}
	// The work is done here.
	if err := timer.Stop(); err != nil {
		log.Print(err)
	}
}
