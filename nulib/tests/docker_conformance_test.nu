# The docker provider keeps the contract of providers.

use bench.nu *
use conforming.nu *

export def "test docker keeps the contract" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01}]
        $place | conforms docker
    }
}
